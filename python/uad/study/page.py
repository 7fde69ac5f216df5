"""What a study publishes: figures, two blocks of conclusions.md, and a self-contained web page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from uad.checkpoint import WriteError, atomic_write
from uad.figures import encode
from uad.html import document
from uad.landscape import table as landscape
from uad.study import figures
from uad.study.advice import missing_for_comparison
from uad.study.answer import Answer, answer
from uad.study.measures import primary
from uad.study.method import made_of, method
from uad.study.questions import Comparison, Contrast, comparisons, contrasts
from uad.study.results import ResultsError, merge_results
from uad.study.section import Picture, Section
from uad.study.sentences import contrast_sentence, describe, sentences
from uad.study.setting import Setting
from uad.study.shard import common_stem
from uad.study.switching import switching_table
from uad.study.tables import (
    contrast_table,
    difference_table,
    error_table,
    score_table,
    stuck_table,
)
from uad.table import Table

PAGE = "conclusions.md"
CAN_COPY = (
    "Does amplification change more where the network can copy? Differences between differences in "
    "image AUROC under the primary score:"
)
IN_WORDS = "Differences in image AUROC under the primary score, in words:"
BLOCKS = ("answer", "study")
"""The generated parts of conclusions.md, each between two marks. People may write before, between
and after them."""


def publish(paths: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write tables, figures and pages about all results files; return the files written.

    out: folder to write to; None for that of the first results file. Raises ResultsError if the
    results allow no comparison, conclusions.md lacks the marks, or a file cannot be written.
    """
    results = merge_results(paths)
    groups = comparisons(results)
    names = ", ".join(path.name for path in paths)
    if not groups:
        raise ResultsError(
            f"{', '.join(map(str, paths))}: contains no two runs that differ only in the loss: "
            f"{missing_for_comparison(results)}"
        )
    folder, stem = out or paths[0].parent, common_stem(paths)
    overview = differences_picture(groups, stem)
    found = [setting_section(setting, group, stem) for setting, group in groups.items()]
    pictures = [overview, *(section.picture for section in found if section.picture)]
    found += [contrast_section(*each) for each in by_setting(contrasts(groups)).items()]
    found += landscape_section(folder)
    switching = switching_table(groups)
    lead = Lead(answer(groups), switching, made_of(results), method(groups), overview)
    files = {picture.name: picture.content for picture in pictures}
    files[f"{stem}.html"] = page(lead, found).encode()
    blocks = {"answer": answer_block(lead), "study": study_block(names, lead, found)}
    files[PAGE] = fill(folder / PAGE, blocks).encode()
    return write(folder, files)


def write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write the files into the folder, each of them whole or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with atomic_write(folder / name) as file:
                file.write(content)
    except WriteError as error:
        raise ResultsError(str(error)) from error
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be created: {error.strerror or error}") from error
    return [folder / name for name in files]


@dataclass(frozen=True)
class Lead:
    """What a page begins with."""

    answer: Answer
    switching: Table | None
    summary: str
    method: str
    overview: Picture


def marks(name: str) -> tuple[str, str]:
    """The lines around a block of conclusions.md."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def fill(path: Path, blocks: Mapping[str, str]) -> str:
    """The text of the file at `path` with each block between its marks.

    Without a file, a title and the blocks. ResultsError if the file lacks a mark.
    """
    if path.exists():
        text = path.read_text(encoding="utf-8")
    else:
        text = "\n\n".join(["# Study", *("\n".join(marks(name)) for name in blocks)]) + "\n"
    for name, block in blocks.items():
        first, last = marks(name)
        head, begin, rest = text.partition(first)
        _, end, tail = rest.partition(last)
        if not begin or not end:
            raise ResultsError(
                f"{path}: lacks the marks {first} and {last}, between which to write"
            )
        text = f"{head}{first}\n{block}{last}{tail}"
    return text


def by_setting(contrasts: Sequence[Contrast]) -> dict[str, list[Contrast]]:
    """The contrasts, grouped under their headings."""
    found: dict[str, list[Contrast]] = {}
    for each in contrasts:
        narrow, wide = each.narrow.setting, each.wide.setting
        found.setdefault(f"{wide}, against a {narrow.code}", []).append(each)
    return found


def tables(group: Sequence[Comparison]) -> list[Table]:
    """All tables for a setting."""
    main = [each for each in group if each.main]
    stuck = stuck_table(group)
    return [
        difference_table(group),
        *([stuck] if stuck else []),
        *([score_table(main), error_table(main)] if main else []),
    ]


def differences_picture(groups: dict[Setting, list[Comparison]], stem: str) -> Picture:
    """All comparisons at a glance."""
    return Picture(
        f"{stem}-differences.png",
        encode(figures.forest(groups), "png"),
        "Mean differences by comparison",
        "The mean difference in image AUROC of every comparison"
        + (", with its 95% interval." if any_bounded(groups.values()) else "."),
    )


def any_bounded(groups: Iterable[Sequence[Comparison]]) -> bool:
    """Whether any comparison has an interval."""
    return any(
        (found := each.difference(primary(each.setting.dataset))) is not None and found.bounded
        for group in groups
        for each in group
    )


def setting_section(setting: Setting, group: Sequence[Comparison], stem: str) -> Section:
    """All comparisons in a setting."""
    main = [each for each in group if each.main]
    dots = None
    if main:
        dots = Picture(
            f"{stem}-{setting.slug}.png",
            encode(figures.paired_dots(main), "png"),
            f"Differences by class: {setting}",
            "Each dot is a pair of runs. Below, the mean over the classes"
            + (" with its interval." if any_bounded([main]) else "."),
        )
    introduction = f"{describe(setting, group)} {IN_WORDS}"
    return Section(str(setting), introduction, sentences(group), dots, tables(group))


def contrast_section(heading: str, contrasts: Sequence[Contrast]) -> Section:
    """What a wide code changes, for contrasts under the same heading."""
    said = [contrast_sentence(each) for each in contrasts]
    return Section(heading, CAN_COPY, said, None, [contrast_table(contrasts)])


def landscape_section(folder: Path) -> list[Section]:
    """What landscape.py wrote into the folder; empty if it wrote nothing."""
    try:
        found = landscape.read_tables(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ResultsError(
            f"{folder / landscape.LINES}: not written by landscape.py: {error}; delete it, or run "
            "landscape.py again"
        ) from error
    if not found:
        return []
    png = Picture(
        landscape.PICTURE,
        (folder / landscape.PICTURE).read_bytes(),
        "Loss landscapes",
        "The training loss around the trained weights.",
        "large",
    )
    return [Section("Loss landscapes", "", [], png, found)]


def answer_block(lead: Lead) -> str:
    """What conclusions.md begins with."""
    table = f"\n{lead.switching.markdown()}" if lead.switching else ""
    return f"{lead.answer.markdown()}{table}"


def study_block(names: str, lead: Lead, sections: Sequence[Section]) -> str:
    """Everything else that is generated. names: file names of the results."""
    origin = (
        "*The answer that this page begins with, and all that follows, are generated by "
        f"`study.py publish` from `{names}`.*"
    )
    parts = [
        f"{origin} {lead.summary}\n",
        lead.overview.markdown(),
        lead.method,
    ]
    return "\n".join([*parts, *(section.markdown() for section in sections)])


def page(lead: Lead, sections: Sequence[Section]) -> str:
    """The self-contained web page."""
    return document(
        "What amplification changes",
        f"{lead.answer.html()}{lead.switching.html() if lead.switching else ''}"
        f"{lead.overview.html()}"
        f"<p>{escape(lead.summary)}</p>\n<p>{escape(lead.method)}</p>\n",
        {escape(section.heading): section.html() for section in sections},
    )
