"""A chat model: its settings, what it is asked, and what it replies, wherever it runs."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel

from fgclip_fast.config.rules import NotNegative, Positive, ShareOrZero, check

_OPERATION = ("engine", "url", "key", "concurrency", "timeout", "retries", "price_in", "price_out", "vllm")
# An answer does not depend on these, so that a run that has met the end of a GPU's memory goes on with others.
_SPEED = (
    "max_model_len", "tensor_parallel_size", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens",
    "enforce_eager", "kv_cache_memory_bytes", "cpu_offload_gb", "enable_prefix_caching", "disable_log_stats",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Vllm:
    """vLLM in this process. The names are those of `vllm serve`; what is not given is vLLM's choice."""

    max_model_len: NotNegative[int] = 0
    """Tokens of a question with its image and of the answer, together, at most; 0: as many as the model can take."""
    tensor_parallel_size: Positive[int] = 1
    """GPUs that share the model; on a Ray cluster, ray.gpus of each worker."""
    gpu_memory_utilization: ShareOrZero[float] = 0.0
    """Share of a GPU's memory that vLLM takes; 0: vLLM's choice."""
    dtype: str = "auto"
    """Of the weights: auto, bfloat16, float16 or float32."""
    quantization: str = ""
    """As fp8 or awq; empty: as the model's own files say."""
    more: str = "{}"
    """Other arguments of vLLM's engine, as JSON: '{"max_num_seqs": 128, "enforce_eager": true}'."""

    def __post_init__(self) -> None:
        check(self, "curate: chat.vllm.")
        self._more()

    def identity(self) -> dict[str, Any]:
        """The settings that answers depend on."""
        return {name: value for name, value in self.arguments().items() if name not in _SPEED}

    def arguments(self) -> dict[str, Any]:
        """The arguments of the engine that are given."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        given.pop("more", None)
        return given | self._more()

    def _more(self) -> dict[str, Any]:
        names = [one.name for one in fields(self)]
        try:
            more = json.loads(self.more)
        except ValueError as error:
            raise ValueError(f"curate: chat.vllm.more must be JSON, got {self.more!r} ({error})") from None
        twice = [name for name in more if name in names] if isinstance(more, dict) else [self.more]
        if twice:
            raise ValueError(
                f"curate: chat.vllm.more must be a JSON object of arguments other than {', '.join(names)}, "
                f"got {twice[0]!r}"
            )
        return dict(more)


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A chat model: behind an OpenAI-compatible endpoint, or in this process by vLLM."""

    model: str = ""
    """Name of the model, as the server has it; for vllm its name on the hub, or its folder."""
    engine: Literal["server", "vllm"] = "server"
    """server: ask the one at url; vllm: load the model in this process, or in each of Ray's workers."""
    url: str = "http://localhost:8000/v1"
    """Address of the server, /v1 included."""
    key: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key; a server of one's own needs none."""
    vllm: Vllm = field(default_factory=Vllm)
    """Settings of the engine vllm."""
    temperature: NotNegative[float] = 0.0
    """Of sampling; an answer that cannot be used is asked for again with another seed."""
    max_tokens: Positive[int] = 512
    """Tokens of an answer."""
    image_side: Positive[int] = 1024
    """Longest side of an image that is sent, pixels; larger ones are made smaller."""
    asks: Positive[int] = 3
    """Times that a question is asked until its answer can be used."""
    concurrency: Positive[int] = 64
    """Requests under way at once."""
    timeout: Positive[float] = 300.0
    """Seconds to wait for a server's answer."""
    retries: NotNegative[int] = 8
    """Tries after status 429, 5xx, a time-out or a cut connection; Retry-After is honoured, up to two minutes."""
    price_in: NotNegative[float] = 0.0
    """US dollars of a million tokens that are sent, for the report."""
    price_out: NotNegative[float] = 0.0
    """US dollars of a million tokens that are received."""

    def __post_init__(self) -> None:
        check(self, "curate: chat.")
        if self.engine == "server" and self.vllm != Vllm():
            raise ValueError("curate: chat.vllm is of --chat.engine vllm, got chat.engine server")
        if self.engine == "vllm" and self.url != Chat.url:
            raise ValueError(f"curate: chat.url must not be given with chat.engine vllm, got {self.url}")

    def identity(self) -> dict[str, Any]:
        """The settings that answers depend on."""
        given = {name: value for name, value in asdict(self).items() if name not in _OPERATION}
        return given | ({"vllm": self.vllm.identity()} if self.engine == "vllm" else {})

    def cost(self, counts: Counter[str]) -> float:
        """US dollars of the tokens that were counted."""
        return (self.price_in * counts["tokens in"] + self.price_out * counts["tokens out"]) / 1e6


class Reply(NamedTuple):
    """What a model has replied to a request."""

    text: str
    refusal: str = ""
    """Why it does not answer, if the server tells so beside the text."""
    cut: bool = False
    """True if it ends at max_tokens."""
    tokens_in: int = 0
    tokens_out: int = 0


class Model(Protocol):
    """What answers: a server, or vLLM in this process."""

    async def reply(self, content: list[dict[str, Any]], form: type[BaseModel], seed: int) -> Reply:
        """Answer one request.

        Args:
            content: of the user's message, in OpenAI's form: a text, and an image.
            form: what the answer must look like, as JSON.
            seed: of sampling.

        Raises:
            LeftOut: this request cannot be answered.
            ValueError: no request can be answered with these settings.
            OSError: the model does not answer any more.
        """

    async def close(self) -> None:
        """Give back what it holds."""
