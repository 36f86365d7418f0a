"""Make the descriptors beside the .proto files of ecoflow_push/devices/schema.

python -m tests.compile_schema

Needs protoc: Debian's protobuf-compiler, or grpcio-tools from PyPI. The program and
its tests need neither: test_protobuf_schema.py compares the two kinds of files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from ecoflow_push.devices import tables

SCHEMA = Path(tables.SCHEMA)
PROTOC = (
    ["protoc"]
    if shutil.which("protoc")
    else [sys.executable, "-m", "grpc_tools.protoc"]
)


def compiled(source: Path) -> bytes:
    """Return the FileDescriptorProto of a .proto file, without what is derived."""
    with tempfile.NamedTemporaryFile() as target:
        subprocess.run(
            [*PROTOC, f"-I{SCHEMA}", f"--descriptor_set_out={target.name}", source],
            check=True,
        )
        (file,) = FileDescriptorSet.FromString(target.read()).file
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return bytes(file.SerializeToString(deterministic=True))


if __name__ == "__main__":
    for path in sorted(SCHEMA.glob("*.proto")):
        path.with_suffix(".binpb").write_bytes(compiled(path))
