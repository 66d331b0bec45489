"""The log of a function's process, read in any pieces."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lambdadb.lab.environment.runtime_process import FRAME, Output

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=8)
RECORD = st.text(st.characters(codec="utf-8"), max_size=8).map(lambda text: text.removesuffix("\n"))


def frame(text: str) -> bytes:
    data = text.encode()
    return FRAME + b"\x03" + len(data).to_bytes(4, "big") + bytes(8) + data


@given(
    entries=st.lists(st.tuples(st.booleans(), st.booleans(), RECORD, TEXT), max_size=6),
    cuts=st.lists(st.integers(0, 200), max_size=4),
)
def test_records_and_lines_come_whole_and_in_order(
    tmp_path_factory: object, entries: list[tuple[bool, bool, str, str]], cuts: list[int]
) -> None:
    """Wherever a read ends, in a frame's head too, each entry comes once, whole, and in its place."""
    data, expected = b"", []
    for is_record, ends_line, record, line in entries:
        data += frame(record + "\n" * ends_line) if is_record else f"{line}\n".encode()
        expected.append(record if is_record else line)
    file = Path(str(tmp_path_factory.mktemp("log"))) / "log"  # type: ignore[attr-defined]
    output, seen = Output(file), []
    for end in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        file.write_bytes(data[:end])
        seen += output.new_entries()
    assert seen + output.new_entries(ended=True) == expected
