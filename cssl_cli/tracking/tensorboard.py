"""TensorBoard: a file of events for a run, written anew by each process; earlier ones are emptied."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cssl_cli.tracking.mirror import Say
from cssl_cli.tracking.records import Point, Records, Values

OURS = ".cssl"  # the end of the names of our files


class TensorBoard:
    """Events in `into`/<run>, by default in the folder `tensorboard` beside the run directory."""

    def __init__(self, records: Records, into: str | None, say: Say) -> None:  # noqa: ARG002
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.begun, self.seconds = records.begun, 0.0
        folder = Path(into or records.place.parent / "tensorboard") / records.name
        folder.mkdir(parents=True, exist_ok=True)
        earlier = list(folder.glob(f"events.out.tfevents.*{OURS}"))
        self.file = RecordWriter((folder / f"events.out.tfevents.{time.time_ns()}{OURS}").open("xb"))
        self._write(file_version="brain.Event:2")
        self._write(session_log=SessionLog(status=SessionLog.START))  # who has read the earlier file forgets it here
        self._write(summary=_as_text(records.recipe))
        for path in earlier:  # a TensorBoard that is reading one goes on to the next only while it is there
            path.unlink() if path.stat().st_size == 0 else os.truncate(path, 0)

    def log(self, points: Sequence[Point]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            self.seconds = point.seconds
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            self._write(step=point.step, summary=Summary(value=values))
        self.file.flush()

    def finish(self, summary: Values, step: int, state: str) -> None:  # noqa: ARG002
        self.log([Point(step, self.seconds, summary)])
        self.file.close()

    def _write(self, *, step: int = 0, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.file.write(Event(wall_time=self.begun + self.seconds, step=step, **content).SerializeToString())


def _as_text(recipe: dict[str, Any]) -> Any:
    """The recipe as TensorBoard shows a text: indented, so that its Markdown is code."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    lines = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).splitlines()
    value = Summary.Value(tag="recipe/text_summary")
    value.metadata.plugin_data.plugin_name = "text"
    value.tensor.dtype = DT_STRING
    value.tensor.tensor_shape.dim.add(size=1)
    value.tensor.string_val.append("".join(f"    {line}\n" for line in lines).encode())
    return Summary(value=[value])
