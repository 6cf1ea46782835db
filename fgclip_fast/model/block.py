"""The transformer block of both towers; parameter names are those of the released state dict.

Between two products of a block stands one pass over the tokens: the update that the first one made is added to the
residual stream and normalised for the second (ops/norm_linear), or the activation is taken (ops/activation_linear). A
block therefore hands on its last product as an update that is still to be added.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial, wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.model.attention import Attend
from fgclip_fast.model.product_weights import ProductWeights, product_dtype, product_weights
from fgclip_fast.ops import activation_linear, add_layer_norm, norm_linear, split_joint
from fgclip_fast.ops.activation_linear import Kind
from fgclip_fast.ops.linear import linear, product

P = ParamSpec("P")
R = TypeVar("R")


class Stream(NamedTuple):
    """The residual stream, and an update that is still to be added: ``residual + update + bias``."""

    residual: Tensor
    """Tensor[..., width], fp32, or bf16 where the config says so."""
    update: Tensor | None = None
    """Tensor[..., width], a product without its bias."""
    bias: Tensor | None = None
    """Tensor[width], the bias of that product."""

    def normed(self, norm: nn.LayerNorm) -> Tensor:
        """LayerNorm of the sum, in fp32 at least."""
        dtype = torch.promote_types(self.residual.dtype, torch.float32)
        return add_layer_norm(*self, norm.weight, norm.bias, norm.eps, dtype)[1]


class Attention(nn.Module):
    """Projections to queries, keys and values, and back; :class:`Block` multiplies by them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def split(self, projected: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Queries, keys and values, Tensor[..., heads, d] each, of their products in one tensor or three."""
        biases = self.q_proj.bias, self.k_proj.bias, self.v_proj.bias
        parts = split_joint(projected[0], biases) if len(projected) == 1 else projected
        return tuple(x.unflatten(-1, (self.heads, -1)) for x in parts)


class MLP(nn.Module):
    """Two linear layers around the activation; :class:`Block` multiplies by them."""

    def __init__(self, width: int, hidden: int, activation: Kind) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.activation = activation


def per_token(part: Callable[Concatenate["Block", P], R]) -> Callable[Concatenate["Block", P], R]:
    """Compile a method of a block that treats each token by itself, where the config says so.

    Attention stays out: its sizes change with each batch, and each change would compile it again.
    """

    @wraps(part)
    def call(block: "Block", /, *arguments: P.args, **options: P.kwargs) -> R:
        return (_compiled(part) if block.compiled else part)(block, *arguments, **options)

    return call


@cache
def _compiled(part: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(part, dynamic=True)  # not before it is wanted: this imports the compiler


class Block(nn.Module):
    """Pre-LayerNorm block: ``x += attention(LN1 x); x += MLP(LN2 x)``."""

    def __init__(self, part: Vision | Text, config: Model) -> None:
        super().__init__()
        self.compiled, self.recompute = config.compile, config.recompute
        self.self_attn = Attention(part.width, part.heads)
        self.layer_norm1 = nn.LayerNorm(part.width, eps=config.layer_norm_eps)
        self.mlp = MLP(part.width, part.mlp, config.activation)
        self.layer_norm2 = nn.LayerNorm(part.width, eps=config.layer_norm_eps)

    def forward(self, stream: Stream, attend: Attend, rows: Tensor | None = None) -> Stream:
        """One block over tokens in any layout that ``attend`` understands.

        Args:
            stream: Tensor[..., width].
            attend: mixes the tokens: queries, keys and values, Tensor[..., heads, d] each -> the same.
            rows: Tensor[M], integer: of all tokens, counted flat, only these leave the block (the others are still
                attended to). None: all.

        Returns:
            The stream after the block, Tensor[..., width] or Tensor[M, width].
        """
        weights = self.weights(stream.residual)
        residual, *qkv = self.project(stream, weights)
        mixed = attend(*self.self_attn.split(qkv)).flatten(-2)
        if rows is not None:
            residual, mixed = (F.embedding(rows, x.flatten(0, -2)) for x in (residual, mixed))  # rows may repeat
        return self.finish(residual, mixed, weights)

    def weights(self, like: Tensor) -> ProductWeights:
        """The weights of the block's products in the dtype of products: the autocast's, or the weights' own."""
        attention, mlp = self.self_attn, self.mlp
        qkv = attention.q_proj, attention.k_proj, attention.v_proj
        others = [full_weight(layer) for layer in (attention.out_proj, mlp.fc1, mlp.fc2)]
        dtype = product_dtype(like, mlp.fc1.weight)
        return product_weights([full_weight(layer) for layer in qkv], [layer.bias for layer in qkv], others, dtype)

    @per_token
    def project(self, stream: Stream, weights: ProductWeights) -> tuple[Tensor, ...]:
        """The sum of the stream, and queries, keys and values in one tensor or three."""
        norm, biases = self.layer_norm1, weights.qkv_bias
        if len(biases) == 1:
            biases = [biases[0].detach()]  # the gradient of each part comes from split_joint
        return norm_linear(*stream, norm.weight, norm.bias, weights.qkv, biases, norm.eps)

    @per_token
    def finish(self, residual: Tensor, mixed: Tensor, weights: ProductWeights) -> Stream:
        """The output projection and the MLP, for each token by itself: Tensor[..., width] each."""
        norm, mlp = self.layer_norm2, self.mlp
        update, bias = linear(mixed, weights.out), self.self_attn.out_proj.bias
        residual, hidden = norm_linear(residual, update, bias, norm.weight, norm.bias, [weights.fc1], None, norm.eps)
        again = partial(self._hidden, residual.detach(), weights.fc1.detach())
        with _made_again(hidden, again) if self.recompute == "mlp" else nullcontext():
            update = activation_linear(hidden, mlp.fc1.bias, weights.fc2, mlp.activation)
        return Stream(residual, update, mlp.fc2.bias)

    @torch.no_grad()
    def _hidden(self, residual: Tensor, weight: Tensor) -> Tensor:
        """The MLP's first product of the residual stream, without its bias: Tensor[..., hidden]."""
        norm = self.layer_norm2
        return product(add_layer_norm(residual, None, None, norm.weight, norm.bias, norm.eps, weight.dtype)[1], weight)


def _made_again(tensor: Tensor, make: Callable[[], Tensor]) -> torch.autograd.graph.saved_tensors_hooks:
    """A context in which ``tensor`` is not saved for the backward pass, which makes it again by ``make``."""
    left_out = id(tensor)  # a reference would keep it all the same
    return torch.autograd.graph.saved_tensors_hooks(
        lambda saved: None if id(saved) == left_out else saved,
        lambda saved: make() if saved is None else saved,
    )


def full_weight(layer: nn.Linear) -> Tensor:
    """The weight that a layer multiplies by, Tensor[out, in]; adapters that peft put around it are added in fp32.

    A block never calls the layer itself, so peft's own forward pass would not be run.
    """
    if type(layer) is nn.Linear:
        return layer.weight
    around: Any = layer
    if not hasattr(around, "get_delta_weight") or around.disable_adapters or around.merged:
        return layer.weight
    with torch.autocast(layer.weight.device.type, enabled=False):
        return sum((around.get_delta_weight(name) for name in around.active_adapters), start=layer.weight)


class Encoder(nn.Module):
    """The blocks of a tower, each recomputed in the backward pass where the config says so."""

    def __init__(self, blocks: Sequence[Block], config: Model) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        self.recompute = config.recompute == "blocks"
        self.rounds_residual = config.residual == "bf16"

    @torch.no_grad()
    def reset_parameters(self, width: int) -> None:
        """Fill the products' weights as CLIP does, for a residual stream of ``width``, and their biases with 0."""
        into, out = width**-0.5 * (2 * len(self.layers)) ** -0.5, width**-0.5
        for block in self.blocks():
            attention, mlp = block.self_attn, block.mlp
            for layer in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.fc2):
                nn.init.normal_(layer.weight, std=into)
            nn.init.normal_(attention.out_proj.weight, std=out)
            nn.init.normal_(mlp.fc1.weight, std=(2 * width) ** -0.5)
            for layer in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, mlp.fc1, mlp.fc2):
                nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor, attend: Attend) -> Stream:
        """Run all blocks but the last over Tensor[..., width]; each tower runs its last block itself, by ``run``."""
        products = product_dtype(hidden, hidden)
        stream = Stream(hidden.to(products) if self.rounds_residual else hidden)
        for block in self.blocks()[:-1]:
            stream = self.run(block, stream, attend)
        return stream

    def run(self, block: Callable[..., Stream], *arguments: Any) -> Stream:
        """Call a block, or a method of one, and recompute it in the backward pass where the config says so."""
        if self.recompute and torch.is_grad_enabled():
            # The random state is not kept, since nothing draws.
            return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
        return block(*arguments)

    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [block for block in self.layers if isinstance(block, Block)]
