"""`edgellm doctor`: the machine, what edgellm makes of it, and what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from edgellm.cli.options import Json

if TYPE_CHECKING:
    from edgellm.cli.checks import Facts, Report

# Features that a person may have heard of: those that make kernels fast.
_TELLING = ("avx2", "fma", "f16c", "avx512f", "avx512vnni", "avxvnni", "amx-int8", "dotprod", "i8mm", "sve2")


def doctor(as_json: Json = False) -> None:
    """Examine this machine, and say what is wrong and how to mend it: exit code 0 if nothing is, else 1."""
    from edgellm.cli.checks import examine

    report = examine()
    if as_json:
        print(json.dumps({**report.facts, "problems": report.problems, "ok": not report.problems}))
    else:
        print("\n".join(lines(report)))
    if report.problems:
        raise typer.Exit(1)


def lines(report: Report) -> list[str]:
    """The report for people; of a subject that could not be examined there is only its problem."""
    rows = [
        (subject, row)
        for subject, facts in report.facts.items()
        if facts
        for row in _ROWS.get(subject, _plain)(facts)
    ]
    shown = [f"{subject:<9} {row}" for subject, row in rows]
    if not report.problems:
        return [*shown, "", "All is well."]
    return [*shown, "", "What is wrong:", *(f"- {problem}" for problem in report.problems)]


def _cpu(f: Facts) -> list[str]:
    telling = [name for name in _TELLING if name in f["features"]]
    return [
        f"{f['name']} ({f['machine']}, to LLVM {f['llvm_name']})",
        f"target {f['target']}, of {', '.join(f['targets'])}",
        f"features {' '.join(telling) or 'none that kernels use'}",
    ]


def _threads(f: Facts) -> list[str]:
    quota = "" if f["quota"] is None else f", quota {f['quota']:g}"
    return [f"{f['chosen']}: {f['why']} ({f['cpus']} CPUs, {f['allowed']} allowed{quota})"]


def _memory(f: Facts) -> list[str]:
    return [f"{_size(f['available'])} available of {_size(f['total'])}"]


def _versions(f: Facts) -> list[str]:
    return [", ".join(f"{name} {version or 'missing'}" for name, version in f.items())]


def _compiler(f: Facts) -> list[str]:
    return ["kernels compile and load" if f["works"] else "does not work"]


def _kernels(f: Facts) -> list[str]:
    rows = [f"{f['folder']}: {f['entries']} kernels, {_size(f['bytes'])}"]
    if f["damaged"]:
        rows.append(f"damaged, to be compiled again when needed: {', '.join(f['damaged'])}")
    if f["stale_folders"]:
        count, size = len(f["stale_folders"]), _size(f["stale_bytes"])
        rows.append(f"{count} folders of other versions or CPUs, {size}, which may be removed")
    return rows


def _models(f: Facts) -> list[str]:
    here = ", ".join(f["models"]) or "none yet"
    return [f"{f['folder']}: {here}, {_size(f['bytes'])}; {_size(f['disk_free'])} free"]


def _plain(f: Facts) -> list[str]:
    return [f"{name}: {value}" for name, value in f.items()]


def _size(count: int | None) -> str:
    if count is None:
        return "an unknown amount"
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:.1f} MiB"


_ROWS: dict[str, Any] = {
    "cpu": _cpu,
    "threads": _threads,
    "memory": _memory,
    "versions": _versions,
    "compiler": _compiler,
    "kernels": _kernels,
    "models": _models,
}
