"""The schema of binary messages against the field tables it was written from."""

from __future__ import annotations

import csv
import re

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from ecoflow_push.api import protobuf
from ecoflow_push.devices.messages import messages_of, tables
from ecoflow_push.devices.products import products
from tests import models_table
from tests.compile_schema import SCHEMA
from tests.support import SHARED


def declared(text: str) -> list[tuple[str, ...]]:
    """Return what a .proto file declares, line by line."""
    found: list[tuple[str, ...]] = []
    for line in text.splitlines():
        if line.startswith("message "):
            found.append((line.split()[1],))
        elif line.startswith("  "):
            found.append(tuple(re.findall(r"\w+", line)))
    return found


def described(file: FileDescriptorProto) -> list[tuple[str, ...]]:
    """Return what a descriptor declares, in the same form."""
    found: list[tuple[str, ...]] = []
    for message in file.message_type:
        found.append((message.name,))
        for entry in message.field:
            kind = (
                entry.type_name.rpartition(".")[2]
                or entry.Type.Name(entry.type)[5:].lower()
            )
            label = entry.Label.Name(entry.label)[6:].lower()
            default = ("default", entry.default_value) if entry.default_value else ()
            found.append((label, kind, entry.name, str(entry.number), *default))
    return found


@pytest.mark.parametrize("path", sorted(SCHEMA.glob("*.proto")), ids=lambda p: p.stem)
def test_the_descriptors_are_those_of_the_proto_files(path):
    """Each committed descriptor declares what the .proto file beside it says."""
    file = FileDescriptorProto.FromString(path.with_suffix(".binpb").read_bytes())

    assert described(file) == declared(path.read_text())


# Which field table each message comes from, by its part of the file's name.
TABLES = {
    "envelope.Header": "Header",
    "display.DisplayPropertyUpload": "DisplayPropertyUpload",
    "runtime.RuntimePropertyUpload": "RuntimePropertyUpload",
    "battery.BMSHeartBeatReport": "BMSHeartBeatReport",
    "battery.Ems_heartbeat_pack_v1p0_t": "CMSHeartBeatReport.v1p0",
    "battery.Ems_heartbeat_pack_v1p3_t": "CMSHeartBeatReport.v1p3",
    "powerstream.InverterHeartbeat": "powerstream_inverter_heartbeat",
    "powerstream.InvHeartbeatType2": "powerstream_inv_heartbeat_type2",
    "smartplug.PlugHeartbeat": "smart_plug_heartbeat",
    "deltaproultra.AppShowHeartbeatReport": "dpu_AppShowHeartbeatReport",
    "deltaproultra.BackendRecordHeartbeatReport": "dpu_BackendRecordHeartbeatReport",
    "deltaproultra.APPParaHeartbeatReport": "dpu_APPParaHeartbeatReport",
    "panel2.ProtoPushAndSet": "shp2_ProtoPushAndSet",
    "powerocean.HeartbeatReport": "powerocean_ems_heartbeat",
    "powerocean.ErrorChangeReport": "powerocean_ErrorChangeReport",
    "powerocean.BpStaReport": "powerocean_BpStaReport",
    "powerocean.EmsChangeReport": "powerocean_EmsChangeReport",
    "powerocean.EmsParamChangeReport": "powerocean_EmsParamChangeReport",
    "powerocean.EnergyStreamReport": "powerocean_EnergyStreamReport",
    "powerocean_fit.EMSHeartbeatReport": "poweroceanfit_EMSHeartbeatReport",
}
# The REST API's names of what the app's table calls pv1_vol_in_tag and pv2_vol_in_tag.
RENAMED = {"pv1VolInTag": "pv1OpVolt", "pv2VolInTag": "pv2OpVolt"}


@pytest.mark.recorded
@pytest.mark.parametrize("name", TABLES)
def test_the_schema_says_what_the_field_tables_say(name):
    """Each row of a field table is a field with that number, kind and REST key."""
    path = SHARED / "ecoflow-fields" / f"{TABLES[name]}.tsv"
    kinds = {"string": "bytes", "enum": "int32", "message": "message"}
    lines = path.read_text().splitlines()
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    wanted = {}
    for row in rows:
        kind = row["type"].partition(":")[0]
        key = RENAMED.get(row["json_key"], row["json_key"])
        wanted[int(row["field_no"])] = (key, kinds.get(kind, kind), row["repeated"])

    fields_of = protobuf.message_class(name).DESCRIPTOR.fields
    types = FileDescriptorProto.DESCRIPTOR.file.message_types_by_name[
        "FieldDescriptorProto"
    ]
    kind_names = types.enum_types_by_name["Type"].values_by_number

    assert {
        entry.number: (
            entry.json_name,
            kind_names[entry.type].name[5:].lower(),
            "yes" if entry.is_repeated else "no",
        )
        for entry in fields_of
    } == wanted


def test_every_route_leads_to_a_message():
    """Each message, list and unit that the tables name is in the schema."""
    groups = [*tables(), ""]
    for route in {r for group in groups for r in messages_of(group).values() if r}:
        message = protobuf.message_class(route.message)()
        if route.items:
            message = getattr(message, route.items).add()
        if route.unit:
            assert "{}" in route.unit_prefix
            assert {*route.unit.split()} <= {*message.DESCRIPTOR.fields_by_name}
        if route.time:
            assert route.time in message.DESCRIPTOR.fields_by_name


def test_the_models_table_is_up_to_date():
    """docs/models.md holds the table that tests/models_table.py makes."""
    text = models_table.DOCUMENT.read_text()

    made = models_table.table()
    assert text.partition(models_table.BEGIN)[2] == made, (
        "make it anew: python -m tests.models_table"
    )
    listed = {*models_table.RECORDED, *models_table.DECODED} - {"Unknown"}
    assert listed <= {product for product, _, _ in products().serials.values()}
