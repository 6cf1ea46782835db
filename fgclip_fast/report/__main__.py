"""The command ``fgclip report``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fgclip_fast import command, preflight, report
from fgclip_fast.config.rules import Device, check


@dataclass(frozen=True, kw_only=True)
class Request:
    """The runs to report on."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run; the page is written to RUN/report.html."""
    other: Annotated[Positional[Path | None], arg(metavar="[OTHER]")] = None
    """Folder of a second run; RUN/report-OTHER.html then compares the two."""
    device: Device = "auto"
    """Where the models embed the validation images: auto (the first GPU, else the CPU), cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check(self)


DESCRIPTION = """Write an HTML page that shows what a run has learned.

With a second run, the page compares the two."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    with command.frame("report"):
        request = command.read(Request, "report", arguments, DESCRIPTION)
        device = preflight.device(request.device)
        if request.other is None:
            print(report.write(request.run, device))
        else:
            print(report.write_comparison(request.run, request.other, device))


if __name__ == "__main__":
    main()
