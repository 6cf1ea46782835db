"""The text tower: one stack of blocks, three position tables, texts as flat runs of tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclip_fast.config.model import Model, Text
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.model.attention import Attend, causal, over_tree
from fgclip_fast.model.block import Block, Encoder
from fgclip_fast.model.positions import long_table, stretch
from fgclip_fast.ops.tree import EOS, LONG_LENGTH, SHORT_LENGTH


class TextTower(nn.Module):
    """CLIP's causal text transformer up to ``final_layer_norm``, pooled at each text's first EOS."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.attention = config.attention
        self.embeddings = TokenEmbeddings(config.text)
        self.encoder = Encoder([Block(config.text, config) for _ in range(config.text.layers)], config)
        self.final_layer_norm = nn.LayerNorm(config.text.width, eps=config.layer_norm_eps)

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Features of texts of both paths, before the projections: Tensor[shorts, width], Tensor[M - shorts, width]."""
        token, offsets, shorts, tree = texts
        short, long = self.embeddings.position_embedding.weight, self.embeddings.long_positions()
        if tree is None:
            return self._padded(token, offsets[: shorts + 1], short), self._padded(token, offsets[shorts:], long)
        hidden = self.embeddings(tree.token, tree.position, torch.cat([short, long]))
        features = self._encode(hidden, over_tree(tree, self.attention), tree.pooled)
        return features[:shorts], features[shorts:]

    def _padded(self, token: Tensor, offsets: Tensor, positions: Tensor) -> Tensor:
        """Texts as rows as long as the longest; the host waits for the GPU here, to learn that length."""
        if len(offsets) == 1:
            return positions[:0]
        ids = pad(token, offsets)
        if ids.shape[1] > len(positions):
            raise ValueError(f"text tower: this path takes at most {len(positions)} tokens a text, got {ids.shape[1]}")
        return self.rows(ids, positions)

    def rows(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Features of texts that stand in rows of equal length, before the projections.

        Args:
            ids: Tensor[M, L], int32 or int64; each row is read at its first EOS, and nothing after that matters.
            positions: the path's table, Tensor[at least L, width].

        Returns:
            Tensor[M, width].
        """
        M, L = ids.shape
        hidden = self.embeddings(ids, torch.arange(L, device=ids.device), positions)
        # Of fp32, since runtimes of exported graphs lack the argmax of integers.
        first_eos = (ids == EOS).float().argmax(dim=1)
        return self._encode(hidden, causal, first_eos + L * torch.arange(M, device=ids.device))

    def _encode(self, hidden: Tensor, attend: Attend, pooled: Tensor) -> Tensor:
        """Features of texts, Tensor[M, width]: of the last block only the rows ``pooled`` are computed."""
        encoder = self.encoder
        stream = encoder.run(encoder.blocks()[-1], encoder(hidden, attend), attend, pooled)
        return stream.normed(self.final_layer_norm)


class TokenEmbeddings(nn.Module):
    """Tokens, and positions of the short and the long path."""

    def __init__(self, part: Text) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(part.vocabulary, part.width)
        self.position_embedding = nn.Embedding(SHORT_LENGTH, part.width)
        self.position_embedding_res = nn.Embedding(LONG_LENGTH, part.width)
        self.position_embedding_ori = nn.Embedding(LONG_LENGTH, part.width)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fill the tables as CLIP does; both long ones are the short one, stretched."""
        for table in (self.token_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=0.02)
        for table in (self.position_embedding_ori, self.position_embedding_res):
            table.weight.copy_(stretch(self.position_embedding.weight))

    def forward(self, token: Tensor, position: Tensor, positions: Tensor) -> Tensor:
        """Tensor[…] of ids, their positions, and the table of these -> Tensor[…, width]."""
        return F.embedding(token, self.token_embedding.weight) + F.embedding(position, positions)

    def long_positions(self) -> Tensor:
        """The long path's table, Tensor[248, width]."""
        return long_table(self.position_embedding_ori.weight, self.position_embedding_res.weight)


def pad(token: Tensor, offsets: Tensor) -> Tensor:
    """Rows of equal length from flat texts; a row's last token, EOS, fills it.

    Args:
        token: Tensor[T], int32.
        offsets: Tensor[M + 1], int64.

    Returns:
        Tensor[M, L], int32.
    """
    length = int(offsets.diff().max())
    index = offsets[:-1, None] + torch.arange(length, device=token.device)
    return token.index_select(0, index.minimum(offsets[1:, None] - 1).flatten()).view(-1, length)
