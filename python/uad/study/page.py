"""What a study publishes: figures, a block of conclusions.md, and a self-contained web page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from uad.checkpoint import atomic_write
from uad.figures import encode
from uad.html import document
from uad.landscape import table as landscape
from uad.study import figures
from uad.study.questions import (
    Comparison,
    Contrast,
    Setting,
    comparisons,
    contrasts,
    primary,
)
from uad.study.results import ResultsError, read_results
from uad.study.section import Picture, Section
from uad.study.statistics import Difference, Result
from uad.study.tables import (
    contrast_table,
    difference_table,
    error_table,
    interval,
    score_table,
    signed,
    stuck_table,
)
from uad.table import Table

PAGE = "conclusions.md"
CAN_COPY = (
    "Does amplification change more where the network can copy? Differences between differences in "
    "image AUROC under the primary score:"
)
IN_WORDS = "Differences in image AUROC under the primary score, in words:"
BEGIN, END = "<!-- study:begin -->", "<!-- study:end -->"

METHOD = """\
Two runs form a pair if only the loss differs: same images, same initial weights, same batches in
the same order, same number of steps. Every network is judged by the same scores, whatever its
training loss. A difference is averaged over the seeds of each class, and then over the classes. Its
95% interval is a percentile bootstrap, widened like Student's t for few values. With five or more
classes, it resamples whole classes, each with all its seeds. With fewer, as with the three
textures, it resamples the seeds within each class, and then it applies to these classes only. Fewer
than seven classes, or fewer than five seeds per class, give no interval. Of twenty comparisons
without any effect, one interval is expected to miss 0, so among this many comparisons a single
interval close to 0 proves nothing. The control, "scaled", is the plain loss times the mean slope of
the amplified one. All elements count the same in that mean, while those with large errors
contribute most to the gradient, so the control has only part of the effect of a larger learning
rate.
"""


def publish(path: Path) -> list[Path]:
    """Write everything next to the results file at `path`; return the files written.

    Raises ResultsError if the results allow no comparison or conclusions.md lacks the marks.
    """
    results = read_results(path)
    groups = comparisons(results)
    if not groups:
        raise ResultsError(f"{path}: contains no two runs that differ only in the loss")
    folder, stem = path.parent, path.stem
    overview = differences_picture(groups, stem)
    found = [setting_section(setting, group, stem) for setting, group in groups.items()]
    pictures = [overview, *(section.picture for section in found if section.picture)]
    found += [contrast_section(*each) for each in by_setting(contrasts(groups)).items()]
    found += landscape_section(folder)
    summary = made_of(results)
    files = {picture.name: picture.content for picture in pictures}
    files[f"{stem}.html"] = page(summary, overview, found).encode()
    block = markdown(path.name, summary, overview, found)
    files[PAGE] = fill(folder / PAGE, block).encode()
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(content)
    return [folder / name for name in files]


def fill(path: Path, block: str) -> str:
    """The text of the file at `path` with `block` between its marks; ResultsError without marks."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Study\n\n{BEGIN}\n{END}\n"
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ResultsError(f"{path}: lacks the marks {BEGIN} and {END}, between which to write")
    return f"{head}{BEGIN}\n{block}{END}{tail}"


def sentence(comparison: Comparison, found: Difference) -> str:
    """A comparison in words, always with its interval."""
    count, of = found.classes_higher
    names = f"{comparison.after} against {comparison.before}"
    if comparison.identical:
        return f"{names}: {comparison.identical} ({len(found.pairs)} pairs)."
    where = f"{len(found.pairs)} pairs, higher in {count} of {of} classes"
    if math.isnan(found.low):
        return f"{names}: {signed(found.mean)}, too few pairs for an interval ({where})."
    verdicts = {
        "higher": "better",
        "lower": "worse",
        "open": "no difference shown",
    }
    return f"{names}: {verdicts[found.verdict]}, {signed(found.mean)} ({interval(found)}; {where})."


def sentences(group: Sequence[Comparison]) -> list[str]:
    """All comparisons in a setting in words."""
    said = []
    for comparison in group:
        measure = primary(comparison.setting.dataset)
        found, rest = comparison.difference(measure), comparison.without_stuck(measure)
        if found:
            said.append(sentence(comparison, found))
        if rest:
            said[-1] += f" Without stuck runs: {signed(rest.mean)} ({interval(rest)})."
    return said


def contrast_sentence(contrast: Contrast) -> str:
    """How much more amplification changes with the wide code, in words."""
    measure = primary(contrast.wide.setting.dataset)
    found, rest = contrast.difference(measure), contrast.without_stuck(measure)
    if found is None:
        raise ValueError(f"{contrast}: has no pairs")
    verdicts = {"higher": "does more", "lower": "does less", "open": "no difference shown"}
    verdict = "too few pairs" if math.isnan(found.low) else verdicts[found.verdict]
    said = f"{contrast}: {verdict}, {_with_interval(found)}."
    return said + (f" Without stuck runs: {_with_interval(rest)}." if rest else "")


def _with_interval(found: Difference) -> str:
    return f"{signed(found.mean)} ({interval(found)}; {len(found.pairs)} pairs)"


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


def made_of(results: Sequence[Result]) -> str:
    """A summary of the results in two sentences."""
    failed = [result for result in results if "failed" in result]
    minutes = sum(result["seconds"] for result in results) / 60
    versions = sorted({result["torch"] for result in results})
    return (
        f"{len(results)} runs, {minutes:.0f} minutes in total, PyTorch {', '.join(versions)}. "
    ) + (
        f"{len(failed)} of them diverged and {'is' if len(failed) == 1 else 'are'} left out: "
        + ", ".join(f"{r['dataset']} {r['normal_class']} {r['loss']}" for r in failed)
        + "."
        if failed
        else "None diverged."
    )


def describe(setting: Setting) -> str:
    """How the runs in a setting were made."""
    return (
        f"Network of width {setting.width} with {setting.latent} channels in its code, "
        f"{setting.epochs} epochs, batch size {setting.batch_size}."
    )


def differences_picture(groups: dict[Setting, list[Comparison]], stem: str) -> Picture:
    """All comparisons at a glance."""
    return Picture(
        f"{stem}-differences.png",
        encode(figures.forest(groups), "png"),
        "Mean differences with their intervals",
        "The mean difference in image AUROC of every comparison, with its 95% interval.",
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
            "Each dot is a pair of runs. Below, the mean over the classes with its interval.",
        )
    introduction = f"{describe(setting)} {IN_WORDS}"
    return Section(str(setting), introduction, sentences(group), dots, tables(group))


def contrast_section(heading: str, contrasts: Sequence[Contrast]) -> Section:
    """What a wide code changes, for contrasts under the same heading."""
    said = [contrast_sentence(each) for each in contrasts]
    return Section(heading, CAN_COPY, said, None, [contrast_table(contrasts)])


def landscape_section(folder: Path) -> list[Section]:
    """What landscape.py wrote into the folder; empty if it wrote nothing."""
    found = landscape.read_tables(folder)
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


def markdown(name: str, summary: str, overview: Picture, sections: Sequence[Section]) -> str:
    """The block of conclusions.md. name: file name of the results."""
    origin = f"*The rest of this page is generated by `study.py publish` from `{name}`.*"
    found = (section.markdown() for section in sections)
    return "\n".join([f"{origin} {summary}\n", METHOD, overview.markdown(), *found])


def page(summary: str, overview: Picture, sections: Sequence[Section]) -> str:
    """The self-contained web page."""
    lead = f'<p class="lead">{escape(summary)}</p>\n<p>{escape(METHOD)}</p>\n{overview.html()}'
    return document(
        "What amplification changes",
        lead,
        {escape(section.heading): section.html() for section in sections},
    )
