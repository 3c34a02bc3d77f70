"""Walks folders of images: which files are images by name, what is left out, and what is an error.

Each folder is listed once, which gives the name and kind of every file. Times are queried later, and only for files
that are used.

Left out and counted: files that file managers, NAS systems and notebooks write beside images; hidden files and folders;
anything that is not a regular file, such as a pipe; links to folders that are read anyway, which would be circular;
images in unsupported formats. What cssl itself writes is left out as well: run directories, sweeps, and the folders
that the caller names. A link that leads nowhere is an error, because an image or a class would be missing.

Names are compared in Unicode's composed form (NFC): a folder copied by way of a Mac is the same folder.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cssl_cli.data.decode import IMAGE_SUFFIXES
from cssl_cli.errors import InputError

Entry = os.DirEntry[str]
Identity = tuple[int, int]  # of a folder, however many links lead to it

_SHOWN = 3
# Of macOS, Synology, QNAP, Windows, Linux, NetApp, Python, FrontPage; most others are hidden.
_OF_A_SYSTEM = """
__macosx, @eadir, @tmp, @sharebin, #recycle, #snapshot, @recycle, @recently-snapshot, $recycle.bin, recycler,
system volume information, found.000, lost+found, ~snapshot, __pycache__, _vti_cnf, _gsdata_
"""
_SYSTEM_FOLDERS = frozenset(_OF_A_SYSTEM.strip().replace("\n", " ").split(", "))
_SYSTEM_FILES = ("synophoto_thumb", "synophoto_film", "synoindex_media_info", "albumart_{")  # how they begin
_UNREAD = ".heic .heif .avif .jxl .jp2 .j2k .svg .eps .psd .xcf .tga .ico .dds .exr .hdr .raw .dng .cr2 .cr3 .nef .arw"
_UNREAD_SUFFIXES = frozenset(f"{_UNREAD} .orf .rw2 .dcm .nii .npy".split())
_RUN, _OF_A_RUN = "recipe.yaml", frozenset(["lock", "status", "environment.json", "profile.json"])
_OF_A_SWEEP = ({"table.csv", "table.json"}, {"results-index.txt"}, {"concentration.json"})


@dataclass
class Listing:
    """One folder: its sub-folders by composed name and its image files; `own`: cssl itself wrote it."""

    folders: dict[str, Entry]
    files: list[Entry]
    own: bool = False


@dataclass
class Contents:
    """All images below a folder, those of a folder before those of its sub-folders, each in the order of names.

    `folders` maps every folder below, by its relative path ("" for this one), to the number of images directly in it;
    `own` are the sub-folders in which something was left out because cssl wrote it.
    """

    path: str
    files: list[Entry] = field(default_factory=list)
    folders: list[tuple[str, int]] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    identities: dict[Identity, str] = field(default_factory=dict)

    @property
    def loose(self) -> list[Entry]:
        """The images in the folder itself."""
        return self.files[: self.folders[0][1]] if self.folders and not self.folders[0][0] else []

    def children(self) -> dict[str, Contents]:
        """The contents of each sub-folder, except those without images because cssl wrote them."""
        found: dict[str, Contents] = {}
        start = 0
        for inside, count in self.folders:
            if inside:
                name, _, rest = inside.partition("/")
                child = found.setdefault(composed(name), Contents(os.path.join(self.path, name)))  # noqa: PTH118
                child.files += self.files[start : start + count]
                child.folders.append((rest, count))
            start += count
        return {name: child for name, child in found.items() if child.files or name not in self.own}

    def filled(self) -> dict[str, Contents]:
        """The sub-folders with images."""
        return {name: child for name, child in self.children().items() if child.files}


class Scanner:
    """Lists folders and counts what it leaves out. `own`: folders that cssl writes to, existing or not."""

    def __init__(self, root: Path, own: Iterable[Path] = ()) -> None:
        self.root = str(root)
        # A link to one of these is circular.
        self.above = {found: str(path) for path in (root, *root.resolve().parents) if (found := _identity(path))}
        self.own = {found for folder in own if (found := _identity(folder))} - set(self.above)
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def listing(self, path: str) -> Listing:
        """The visible sub-folders and image files directly in a folder."""
        folders: dict[str, Entry] = {}
        files: list[Entry] = []
        others: set[str] = set()
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (a Path a file is slow)
                if name[0] == "." or _is_of_a_system(name):
                    if suffix in IMAGE_SUFFIXES or _is_folder(entry):
                        self._leave_out("hidden or written by the system", name)
                elif suffix in IMAGE_SUFFIXES and entry.is_file():
                    files.append(entry)
                elif entry.is_dir():
                    _add_folder(folders, entry)
                else:
                    others.add(name)
                    self._look_at(entry, suffix)
        if _is_own(others, empty=not files and not folders):
            return Listing({}, [], own=True)
        files.sort(key=_in_order)
        return Listing({name: folders[name] for name in sorted(folders)}, files)

    def below(self, path: str, listing: Listing | None = None) -> Contents:
        """All images below a folder; its `listing` may be given."""
        found = Contents(path)
        waiting = [(path, "", _identity_of(os.stat(path)))]  # noqa: PTH116
        while waiting:
            path, inside, identity = waiting.pop()
            if identity in self.own:
                found.own.add(_first(inside))
                continue
            known = found.identities.get(identity) or self.above.get(identity)
            if known is not None and path != self.root:
                self._meet_again(path, inside, known)
                continue
            found.identities[identity] = path
            here = self.listing(path) if listing is None or inside else listing
            if here.own:
                found.own.add(_first(inside))
                continue
            found.files += here.files
            found.folders.append((inside, len(here.files)))
            prefix = f"{inside}/" if inside else ""
            for sub in reversed(here.folders.values()):
                waiting.append((sub.path, prefix + sub.name, _identity_of(sub.stat())))
        return found

    def is_own(self, folder: Entry) -> bool:
        return _identity_of(folder.stat()) in self.own

    def sentence(self) -> str | None:
        """A sentence that counts what was left out; None if nothing was."""
        parts = [
            f"{why}: {count:,} ({', '.join(self.examples[why])}{', ...' if count > len(self.examples[why]) else ''})"
            for why, count in self.counts.items()
        ]
        return f"left out: {'; '.join(parts)}" if parts else None

    def _meet_again(self, path: str, inside: str, known: str) -> None:
        """A link to a folder already read as `known`: a folder cannot be two classes, or training and test set."""
        back = path.startswith(os.path.join(known, "")) or known in self.above.values()  # noqa: PTH118
        if not inside or ("/" not in inside and not back):
            raise InputError(f"this is the same folder as {known}", where=path, remedy="Keep one of the two.")
        self._leave_out("links to folders that are read anyway", os.path.basename(path))  # noqa: PTH119

    def _look_at(self, entry: Entry, suffix: str) -> None:
        """Decides about an entry that is neither a folder nor an image by name and kind."""
        if suffix in _UNREAD_SUFFIXES:
            self._leave_out("formats that are not read", entry.name)
        elif (suffix in IMAGE_SUFFIXES or not suffix[1:].isalpha()) and _is_broken_link(entry):
            remedy = "Restore what it links to, or delete the link."
            raise InputError("this link leads nowhere", where=entry.path, remedy=remedy)
        elif suffix in IMAGE_SUFFIXES:
            self._leave_out("pipes, sockets and devices", entry.name)

    def _leave_out(self, why: str, name: str) -> None:
        self.counts[why] += 1
        if self.counts[why] <= _SHOWN:
            self.examples.setdefault(why, []).append(name)


def composed(name: str) -> str:
    """A name in Unicode's composed form."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _in_order(entry: Entry) -> tuple[str, str]:
    return composed(entry.name), entry.name


def _add_folder(folders: dict[str, Entry], entry: Entry) -> None:
    name = composed(entry.name)
    if name in folders:
        raise InputError(
            f"two folders here are called {name}, in two of Unicode's normal forms",
            where=os.path.dirname(entry.path),  # noqa: PTH120
            remedy="Move the images of one into the other, or rename one.",
        )
    folders[name] = entry


def _is_of_a_system(name: str) -> bool:
    folded = name.lower()
    return folded in _SYSTEM_FOLDERS or folded.startswith(_SYSTEM_FILES)


def _is_own(others: set[str], *, empty: bool) -> bool:
    """Whether these files belong to a run, to one just being created, or to a sweep."""
    if (_RUN in others and others & _OF_A_RUN) or any(names <= others for names in _OF_A_SWEEP):
        return True
    return empty and others == {"lock"}


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a hidden link to itself
        return False


def _is_broken_link(entry: Entry) -> bool:
    try:
        entry.stat()
    except OSError:
        return entry.is_symlink()
    return False


def _identity(folder: Path) -> Identity | None:
    try:
        return _identity_of(folder.stat())
    except OSError:
        return None


def _identity_of(stat: os.stat_result) -> Identity:
    return stat.st_dev, stat.st_ino


def _first(inside: str) -> str:
    return composed(inside.partition("/")[0])
