"""What a study publishes: figures, a block of conclusions.md, and a self-contained web page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from uad.checkpoint import atomic_write
from uad.figures import encode
from uad.html import document, picture
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
from uad.study.statistics import Difference, Result
from uad.study.tables import (
    Table,
    contrast_table,
    difference_table,
    error_table,
    interval,
    score_table,
    signed,
    stuck_table,
)

PAGE = "conclusions.md"
LANDSCAPES = "Loss landscapes"
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
    folder = path.parent
    pictures = {f"{path.stem}-differences.png": encode(figures.forest(groups), "png")}
    for setting, group in groups.items():
        main = [each for each in group if each.main]
        if main:
            name = f"{path.stem}-{setting.slug}.png"
            pictures[name] = encode(figures.paired_dots(main), "png")
    files = dict(pictures)
    files[f"{path.stem}.html"] = page(results, groups, pictures, path).encode()
    files[PAGE] = fill(folder / PAGE, markdown(results, groups, path)).encode()
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


def landscape_tables(folder: Path) -> list[Table]:
    """The tables of what landscape.py wrote into the folder; empty if it wrote nothing."""
    return [Table(each.note, each.heads, each.rows) for each in landscape.read_tables(folder)]


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


def markdown(
    results: Sequence[Result], groups: Mapping[Setting, list[Comparison]], path: Path
) -> str:
    """The block of conclusions.md."""
    parts = [
        f"*The rest of this page is generated by `study.py publish` from `{path.name}`.* "
        f"{made_of(results)}\n",
        METHOD,
        f"![Mean differences with their intervals]({path.stem}-differences.png)\n",
    ]
    for setting, group in groups.items():
        parts.append(f"## {setting}\n")
        parts.append(f"{describe(setting)} {IN_WORDS}\n")
        parts.append("".join(f"- {text}\n" for text in sentences(group)))
        if any(each.main for each in group):
            parts.append(f"![Differences by class]({path.stem}-{setting.slug}.png)\n")
        parts += [each.markdown() for each in tables(group)]
    for heading, contrast in by_setting(contrasts(groups)).items():
        parts.append(f"## {heading}\n\n{CAN_COPY}\n")
        parts.append("".join(f"- {contrast_sentence(each)}\n" for each in contrast))
        parts.append(contrast_table(contrast).markdown())
    landscapes = landscape_tables(path.parent)
    if landscapes:
        parts.append(f"## {LANDSCAPES}\n\n![Loss landscapes]({landscape.PICTURE})\n")
        parts += [each.markdown() for each in landscapes]
    return "\n".join(parts)


def describe(setting: Setting) -> str:
    """How the runs in a setting were made."""
    return (
        f"Network of width {setting.width} with {setting.latent} channels in its code, "
        f"{setting.epochs} epochs, batch size {setting.batch_size}."
    )


def page(
    results: Sequence[Result],
    groups: Mapping[Setting, list[Comparison]],
    pictures: Mapping[str, bytes],
    path: Path,
) -> str:
    """The self-contained page."""
    folder, stem = path.parent, path.stem
    lead = f'<p class="lead">{escape(made_of(results))}</p>\n<p>{escape(METHOD)}</p>\n'
    caption = "The mean difference in image AUROC of every comparison, with its 95% interval."
    lead += picture(pictures[f"{stem}-differences.png"], "png", "Mean differences", caption)
    sections = {}
    for setting, group in groups.items():
        said = "".join(f"<li>{escape(text)}</li>" for text in sentences(group))
        content = f"<p>{escape(describe(setting))} {IN_WORDS}</p>\n<ul>{said}</ul>\n"
        name = f"{stem}-{setting.slug}.png"
        if name in pictures:
            dots = "Each dot is a pair of runs. Below, the mean over the classes with its interval."
            content += picture(pictures[name], "png", f"Paired differences, {setting}", dots)
        sections[escape(str(setting))] = content + "".join(each.html() for each in tables(group))
    for heading, contrast in by_setting(contrasts(groups)).items():
        said = "".join(f"<li>{escape(contrast_sentence(each))}</li>" for each in contrast)
        content = f"<p>{escape(CAN_COPY)}</p>\n<ul>{said}</ul>\n"
        sections[escape(heading)] = content + contrast_table(contrast).html()
    landscapes = landscape_tables(folder)
    if landscapes:
        png = (folder / landscape.PICTURE).read_bytes()
        caption = "The training loss around the trained weights."
        sections[LANDSCAPES] = picture(png, "png", "Loss landscapes", caption, "large")
        sections[LANDSCAPES] += "".join(each.html() for each in landscapes)
    return document("What amplification changes", lead, sections)
