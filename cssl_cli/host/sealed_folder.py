"""A folder of files that contain their own checksums: each is written atomically and verified when read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from cssl_cli.errors import DamagedError
from cssl_cli.host import checksums
from cssl_cli.host.files import explained, read_bytes, replacing

_LARGEST_TEXT = 1 << 28  # bytes; what is larger was not written by us


class SealedFolder:
    """A folder by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> Path:
        return self.path / name

    def needs_checksum(self, name: str) -> bool:  # noqa: ARG002
        """Whether a file without a checksum is damaged; else it may be of a version that wrote none."""
        return False

    def remedy(self, name: str) -> str:
        """What to do about the damaged file of this name."""
        return f"Delete {name}; it is made again."

    # ------------------------------------------------------------------ writing
    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """A path to write to; what was written becomes the file `name` at the end, or nothing changes."""
        return replacing(
            self.file(name), "Free some space or make the folder writable; what was saved before is intact."
        )

    def write_bytes(self, name: str, content: bytes | memoryview) -> None:
        with self.replacing(name) as partial:
            partial.write_bytes(content)

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, content: Mapping[str, Any], *, indent: int | None = 2) -> None:
        fields = {key: value for key, value in content.items() if key != checksums.FIELD}
        text = json.dumps({**fields, checksums.FIELD: checksums.BLANK}, indent=indent, allow_nan=False)
        self.write_bytes(name, checksums.seal(f"{text}\n".encode()))

    # ------------------------------------------------------------------ reading
    def read_json(self, name: str) -> dict[str, Any] | None:
        """The mapping in a JSON file, None when it is not there; `DamagedError` when it is not as it was written."""
        data = self.read_verified(name)
        if data is None:
            return None
        try:
            content = json.loads(data)
            if not isinstance(content, dict):
                raise ValueError("it holds no mapping")
        except (ValueError, RecursionError) as error:
            raise self.damaged(name, str(error)) from error
        content.pop(checksums.FIELD, None)
        return content

    def read_verified(self, name: str) -> bytes | None:
        """What a file of text holds, its checksum verified; None when it is not there."""
        data = self.read_unverified(name)
        if data is not None:
            self.verify(name, io.BytesIO(data))
        return data

    def read_unverified(self, name: str) -> bytes | None:
        """What a file of text holds; `DamagedError` when it is none that can be opened and read."""
        try:
            return read_bytes(self.file(name), largest=_LARGEST_TEXT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.damaged(name, error.strerror or str(error)) from error

    def verify(self, name: str, file: BinaryIO, *, in_header: bool = False) -> None:
        """`DamagedError` unless the file's checksum fits; one without is of a version that wrote none."""
        try:
            digest = checksums.verify(file, in_header=in_header)
        except (ValueError, OSError) as error:
            raise self.damaged(name, str(error)) from error
        if digest is None and self.needs_checksum(name):
            raise self.damaged(name, "it is not as it was written: its checksum is missing")

    def damaged(self, name: str, reason: str) -> DamagedError:
        """The error for a file that cannot be used, with what to do about it."""
        return DamagedError(f"the file is damaged: {reason}", where=str(self.file(name)), remedy=self.remedy(name))

    def remove(self, *names: str) -> None:
        for name in names:
            with explained(self.file(name), "Move it away."):
                self.file(name).unlink(missing_ok=True)
