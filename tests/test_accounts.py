"""What is wrong with a folder of accounts, or with one of its files."""

from __future__ import annotations

import os

import pytest

from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import SettingsError
from ecoflow_push.run.members import create_members

KEYS = "ECOFLOW_ACCESS_KEY=AK-0123456789\nECOFLOW_SECRET_KEY=SK-0123456789\n"
OTHER = KEYS.replace("0123456789", "9876543210")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "accounts"
    path.mkdir()
    return path


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)


def read(folder, **more):
    environ = {
        "ECOFLOW_ACCOUNTS": str(folder),
        "PUSHGATEWAY_URL": "http://gateway:9091",
        "HOME": "/home/me",
        **more,
    }
    return Settings.from_environ(environ)


def faults_of(folder, **more):
    with pytest.raises(SettingsError) as caught:
        read(folder, **more)
    return [str(fault) for fault in caught.value.faults]


def test_each_file_is_an_account(folder):
    """Its name is the file's; hidden files, links of mounts and others are none."""
    hidden = folder / "..2026_11_29"
    hidden.mkdir()
    write(hidden, "mounted.env", OTHER)
    (folder / "..data").symlink_to(hidden.name)
    (folder / "mounted.env").symlink_to("..data/mounted.env")
    write(folder, "home.env", KEYS)
    write(folder, ".hidden.env", KEYS)
    write(folder, "README", "no account")

    accounts = read(folder).accounts

    assert [each.name for each in accounts.ours] == ["home", "mounted"]
    assert not any(each.faults for each in accounts.ours)


def test_a_file_is_over_what_is_said_for_all(folder):
    """Its settings win, its labels are added; its secrets stand beside it."""
    text = KEYS.replace("ECOFLOW_SECRET_KEY=SK-0123456789", "")
    text += "ECOFLOW_SECRET_KEY_FILE=home.secret\nEXTRA_LABELS=site=home\n"
    text += "ECOFLOW_API_HOST=api-e.ecoflow.com\nECOFLOW_DEVICE_SN=R331000000000001\n"
    write(folder, "home.env", text)
    (folder / "home.secret").write_text("SK-of-a-file\n")
    common = read(
        folder, ECOFLOW_API_HOST="api-a.ecoflow.com", EXTRA_LABELS="owner=me,site=none"
    )

    found = create_members(common).settings_of(common.accounts.ours[0])

    assert found.api_url == "https://api-e.ecoflow.com"
    assert found.sources["rest"].secret_key.reveal() == "SK-of-a-file"
    assert found.device_sns == ("R331000000000001",)
    labels = {"owner": "me", "site": "home", "account": "home"}
    assert found.extra_labels == labels


def test_a_file_from_another_editor(folder):
    """A mark at its beginning, DOS line ends, quotes and `export` are no mistake."""
    text = '\ufeffexport ECOFLOW_ACCESS_KEY="AK-0123456789"\r\n'
    write(folder, "home.env", f"{text}ECOFLOW_SECRET_KEY='SK-0123456789'\r\n")
    common = read(folder)

    found = create_members(common).settings_of(common.accounts.ours[0])

    assert found.account == "AK-0123456789"
    assert found.sources["rest"].secret_key.reveal() == "SK-0123456789"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ECOFLOW_ACCESS_KEY": "AK-0"}, "ECOFLOW_ACCESS_KEY: set, and so is ECOFLOW_"),
        ({"ECOFLOW_ACCOUNT_USER_FILE": "/x"}, "ECOFLOW_ACCOUNT_USER: set, and so is"),
        (
            {"ECOFLOW_DEVICE_SN": "R331"},
            "ECOFLOW_DEVICE_SN: set, and so is ECOFLOW_ACC",
        ),
        ({"ECOFLOW_ACCOUNTS": "accounts"}, "ECOFLOW_ACCOUNTS: expected an absolute pa"),
        (
            {"ECOFLOW_ACCOUNTS": "/nonexistent"},
            "ECOFLOW_ACCOUNTS: cannot be read (No s",
        ),
        ({"ACCOUNTS_AT_ONCE": "0"}, "ACCOUNTS_AT_ONCE: expected a whole number from 1"),
        ({"EXTRA_LABELS": "account=me"}, "EXTRA_LABELS: the label account is used by"),
        (
            {"EXTRA_LABELS": "shard=1", "SHARD_INDEX": "0", "SHARD_COUNT": "1"},
            "EXTRA_LABELS: the label shard is used by the program itself",
        ),
        (
            {"SHARD_INDEX": "1", "SHARD_COUNT": "1"},
            "SHARD_INDEX: expected an index bel",
        ),
    ],
)
def test_what_does_not_go_with_accounts(environ, words, folder):
    """What contradicts a folder of accounts is told with the settings (78)."""
    write(folder, "home.env", KEYS)

    found = faults_of(folder, **environ)

    assert [fault[: len(words)] for fault in found] == [words]


def test_labels_of_other_people_stay_theirs():
    """Who has one account may use the labels that accounts and shards have."""
    environ = {
        **dict(line.split("=") for line in KEYS.split()),
        "PUSHGATEWAY_URL": "http://gateway:9091",
        "EXTRA_LABELS": "account=me,shard=1",
        # An engine's, which is nobody's business here.
        "JOB_COMPLETION_INDEX": "7",
    }
    found = Settings.from_environ(environ)

    assert found.accounts is None
    assert found.extra_labels == {"account": "me", "shard": "1"}


def test_shards_need_accounts():
    """What is shared out are the accounts of a folder; without one it is a fault."""
    environ = {
        **dict(line.split("=") for line in KEYS.split()),
        "PUSHGATEWAY_URL": "http://gateway:9091",
        "SHARD_COUNT": "2",
        "SHARD_INDEX": "0",
    }
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ)

    assert [fault.variable for fault in caught.value.faults] == [
        "SHARD_COUNT",
        "SHARD_INDEX",
    ]


def test_a_folder_without_accounts(folder):
    """An empty folder is a fault, with what is to be done."""
    assert faults_of(folder) == [
        (
            "ECOFLOW_ACCOUNTS: no account in it: put a file NAME.env into it for each"
            " account"
        )
    ]


def test_all_broken(folder):
    """Where no file is an account, each is told, of many the first."""
    for number in range(10):
        write(folder, f"a{number}.env", "no setting\n")

    found = faults_of(folder)

    assert len(found) == 9
    assert found[0].startswith("ECOFLOW_ACCOUNTS: a0: a0.env line 1: expected KEY=val")
    assert found[-1] == "ECOFLOW_ACCOUNTS: and 2 more are broken"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("bad", "no setting\n", "bad.env line 1: expected KEY=value"),
        ("bad", "\xff\xfe", "bad.env line 1: expected UTF-8 text"),
        ("bad", f"{KEYS}PUSH_JOB=mine\n", "PUSH_JOB is not for one account"),
        ("bad", f"{KEYS}STATE_DIR=/tmp\n", "STATE_DIR is not for one account"),
        ("bad", f"{KEYS}ECOFLOW_ACCOUNTS=/x\n", "ECOFLOW_ACCOUNTS is not for one acc"),
        ("bad", f"{KEYS}SHARD_INDEX=0\n", "SHARD_INDEX is not for one account"),
        ("bad", f"{KEYS}MQTT_TIMEOUTS=5\n", "MQTT_TIMEOUTS: no setting has this name"),
        ("bad", f"{KEYS}EXTRA_LABEL=a=b\n", "EXTRA_LABEL: no setting has this name: "),
        (
            "bad",
            "ECOFLOW_ACCESS_KEY=AK1\nECOFLOW_SECRETKEY=SK1\n",
            "ECOFLOW_SECRETKEY: no setting has this name: set ECOFLOW_SECRET_KEY",
        ),
        ("bad", f"{KEYS}HTTPS_PROXY=http://x\n", "HTTPS_PROXY is not for one account"),
        # A key that is pasted without its name, and is none of a setting's.
        ("bad", f"{KEYS}QUJDREVGR0g==\n", "what line 3 sets is not for one account"),
        ("bad site", KEYS, "no name for an account"),
        ("bäd", KEYS, "no name for an account"),
        ("x" * 64, KEYS, "no name for an account"),
        ("bad", OTHER, "the same credentials as"),
        ("bad", "ECOFLOW_ACCESS_KEY=AK1\n", "ECOFLOW_SECRET_KEY: missing"),
        ("bad", "", "no credentials"),
        ("bad", f"{KEYS}EXTRA_LABELS=account=x\n", "EXTRA_LABELS: the label account"),
        ("bad", f"{KEYS}EXTRA_LABELS=device=x\n", "EXTRA_LABELS: the label device is"),
        ("bad", f"{KEYS}ECOFLOW_API_HOST=http://far\n", "ECOFLOW_API_HOST: expected h"),
        (
            "bad",
            "ECOFLOW_ACCESS_KEY=AK1\nECOFLOW_SECRET_KEY_FILE=none\n",
            "ECOFLOW_SECRET_KEY_FILE: cannot be read",
        ),
    ],
)
def test_a_broken_file_costs_its_own_account(name, text, words, folder):
    """It is told of that account alone; the others are as they were."""
    write(folder, "a-good.env", OTHER)
    path = folder / f"{name}.env"
    path.write_bytes(text.encode("latin-1" if "\xff" in text else "utf-8"))
    path.chmod(0o600)
    common = read(folder)
    good, bad = sorted(common.accounts.ours, key=lambda each: each.name != "a-good")

    assert create_members(common).settings_of(good).account == "AK-9876543210"
    with pytest.raises(SettingsError) as caught:
        create_members(common).settings_of(bad)
    assert words in str(caught.value)
    assert str(folder) not in str(caught.value).replace(f"{folder}/none", "")


def test_a_key_without_its_name_is_not_told(folder):
    """A secret that ends with = looks like a variable; it is not shown as one."""
    write(folder, "bad.env", "QUJDREVGR0hJSktM==\n")

    (fault,) = faults_of(folder)

    assert "bad: what line 1 sets is not for one account" in fault
    assert "QUJDREVG" not in fault


@pytest.mark.parametrize(
    ("name", "more"), [("Copy of home", ""), ("ancient", "PUSH_JOB=mine\n")]
)
def test_a_broken_copy_costs_nothing(name, more, folder):
    """A file that is no account is nobody's double, though it comes first."""
    write(folder, "home.env", KEYS)
    write(folder, f"{name}.env", KEYS + more)

    copy, home = read(folder).accounts.ours

    assert copy.faults
    assert home.faults is None


APP = "ECOFLOW_ACCOUNT_USER=me@b.c\nECOFLOW_ACCOUNT_PASSWORD=a password\n"


@pytest.mark.parametrize("source", ["auto", "rest"])
def test_an_account_is_known_by_any_of_its_credentials(source, folder):
    """One with keys and an app account is the double of whoever has either of them."""
    write(folder, "a-both.env", f"{KEYS}{APP}ECOFLOW_SOURCE={source}\n")
    write(folder, "b-app.env", APP)
    write(folder, "c-keys.env", KEYS)
    write(folder, "d-other.env", OTHER)

    both, *doubles, other = read(folder).accounts.ours

    assert both.faults is other.faults is None
    told = [str(each.faults) for each in doubles]
    assert all("the same credentials as a-both" in each for each in told), told


@pytest.mark.parametrize(
    "broken", [KEYS + APP, f"{APP}ECOFLOW_ACCESS_KEY=AK-0123456789\n"]
)
def test_credentials_that_contradict_each_other_are_nobody_s(broken, folder):
    """A file that can be no account is nobody's double, though it comes first."""
    write(folder, "a-broken.env", broken)
    write(folder, "keys.env", KEYS)

    assert read(folder).accounts.ours[1].faults is None


def test_a_name_may_be_any_bytes(folder):
    """A file whose name is no UTF-8 is a fault of its own, in each way of sharing."""
    write(folder, "home.env", KEYS)
    name = os.fsdecode(b"b\xffd.env")
    write(folder, name, "no setting")
    found = []
    for index in range(2):
        common = read(folder, SHARD_INDEX=str(index), SHARD_COUNT="2")
        members = create_members(common)
        found += [(each.label, members.folder_of(each)) for each in members.accounts]

    assert sorted(label for label, _ in found) == ["b?d", "home"]
    place = folder.rename(folder.parent / os.fsdecode(b"\xff"))
    assert create_members(read(place)).folder


def test_a_folder_that_is_called_like_an_account(folder):
    """What is no file is that account's fault."""
    write(folder, "home.env", KEYS)
    (folder / "site.env").mkdir()
    site = next(each for each in read(folder).accounts.ours if each.name == "site")

    assert str(site.faults) == "settings: site.env: cannot be read (Is a directory)"


def test_secrets_that_others_can_read_are_told_once(folder):
    """Of many files that are open to others there is one note, with its cure."""
    for number in range(3):
        write(folder, f"a{number}.env", KEYS.replace("0123456789", str(number)))
        os.chmod(folder / f"a{number}.env", 0o644)
    common = read(folder)

    assert [str(note) for note in common.notes] == [
        (
            f"{folder}/a0.env holds a secret, and others can read it; so do 2 more:"
            f" chmod 600 {folder}/*.env"
        )
    ]
    assert create_members(common).settings_of(common.accounts.ours[0]).notes == ()


def test_secrets_that_kubernetes_mounts_open_are_closed_there(folder):
    """Their mode is the manifest's: to change it here is no cure."""
    (folder / "..2026").mkdir()
    (folder / "..data").symlink_to("..2026")
    for name in ("a.env", "b.env"):
        write(folder / "..data", name, KEYS.replace("0123456789", name))
        (folder / "..data" / name).chmod(0o444)
        (folder / name).symlink_to(f"..data/{name}")

    (note,) = read(folder).notes

    assert note.text.endswith("others can read it; so do 1 more")
    assert note.cure.startswith("mount the Secret with defaultMode: 0440, and give ")


def test_a_schedule_is_as_slow_as_its_slowest_account(folder):
    """With an account of the app among them, a run a minute is the most."""
    write(folder, "keys.env", KEYS)
    environ = {
        "ECOFLOW_ACCOUNTS": str(folder),
        "PUSHGATEWAY_URL": "http://gateway:9091",
    }
    assert Settings.from_environ(environ, every=10.0).interval == 10
    write(folder, "app.env", "ECOFLOW_ACCOUNT_USER=a@b.c\nECOFLOW_ACCOUNT_PASSWORD=x")
    assert Settings.from_environ(environ, every=10.0).interval == 60


def test_shards_have_all_accounts_once(folder):
    """Each account falls to one shard, that of its credentials, broken ones too."""
    for number in range(40):
        write(folder, f"a{number}.env", KEYS.replace("0123456789", str(number)))
    write(folder, "broken.env", "no setting")
    found = []
    for index in range(3):
        shard = read(folder, SHARD_INDEX=str(index), SHARD_COUNT="3").accounts
        found += [each.name for each in shard.ours]
        assert len(shard.ours) > 5

    assert len(found) == 41
    assert len(set(found)) == 41
    (folder / "a0.env").rename(folder / "zz.env")
    moved = read(folder, SHARD_INDEX="0", SHARD_COUNT="3").accounts
    names = {"a0" if each.name == "zz" else each.name for each in moved.ours}
    assert names == set(found[: len(names)])
