"""A vision-language model of random weights in a folder, which transformers and vLLM load as any other."""

import re
from pathlib import Path
from typing import Any

CORPUS = "a red mug on a blue table, the light is soft and the ground is grey; list negatives of the caption as JSON"
SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]
_LEVEL = re.compile(r"vision_tower\.(?!vision_model)")
SIDE, PATCH, WIDTH, LONGEST = 56, 14, 64, 4096
TEMPLATE = """{% for message in messages %}{{ message.role }}: {% if message.content is string %}{{ message.content }}
{% else %}{% for part in message.content %}{% if part.type == 'image' %}<image>
{% else %}{{ part.text }}
{% endif %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


def write(folder: Path) -> Any:
    """Write a tiny LLaVA, and return its processor, by which transformers prepares a question."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokens = _tokenizer()
    token = tokens.convert_tokens_to_ids
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=SIDE, patch_size=PATCH),
        text_config=LlamaConfig(
            **sizes, vocab_size=len(tokens), max_position_embeddings=LONGEST, pad_token_id=token("<pad>"),
            bos_token_id=token("<s>"), eos_token_id=token("</s>"), initializer_range=0.2,
        ),
        image_token_index=token("<image>"), vision_feature_layer=-1, image_seq_length=(SIDE // PATCH) ** 2,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    file = folder / "model.safetensors"
    # transformers 5 leaves out a level of these names, which vLLM expects.
    weights = {_LEVEL.sub("vision_tower.vision_model.", name): weight for name, weight in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    processor = LlavaProcessor(
        CLIPImageProcessor(**size), tokens, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token="<image>", chat_template=TEMPLATE,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return processor


def _tokenizer() -> Any:
    """A tokenizer of bytes, and of a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    found.train_from_iterator([CORPUS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=found, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE,
        extra_special_tokens={"image_token": "<image>"}, model_max_length=LONGEST,
    )  # fmt: skip
