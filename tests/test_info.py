import json

import pytest

from fgclip_fast import info
from fgclip_fast.ops import native


def test_json_and_text_name_the_server_of_every_op(capsys):
    info.main(["--json"])
    facts = json.loads(capsys.readouterr().out)
    assert {(row["op"], row["device"]) for row in facts["ops"]} == {
        (op, device) for op, servers in native.SERVERS.items() for device in servers
    }
    info.main([])
    text = capsys.readouterr().out
    assert all(row["server"] in text and (row["why_not_faster"] or "") in text for row in facts["ops"])
    assert facts["packages"]["torch"] in text and facts["fgclip_fast"] in text


def test_the_servers_it_names_exist():
    module = native.extension()
    assert module is not None
    for row in info.describe()["ops"]:
        if row["server"].startswith("fgclip_fast._native."):
            assert hasattr(module, row["server"].rpartition(".")[2])


@pytest.mark.parametrize("servers", [{}, {"cpu": "native"}], ids=["unknown", "not built"])
def test_the_reference_comes_with_the_reason(monkeypatch, servers):
    monkeypatch.setattr(native, "SERVERS", {"new_op": servers | {"cuda": "native"}})
    monkeypatch.setattr(native, "extension", lambda: None)
    native.why_not.cache_clear()
    rows = info.describe()["ops"]
    native.why_not.cache_clear()
    assert rows and all(row["server"] == "fgclip_fast.ops.reference.new_op" for row in rows)
    assert all("pip install -e ." in row["why_not_faster"] for row in rows)
    assert info.describe()["extension"] == "not built"
