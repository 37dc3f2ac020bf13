"""Stores and users: made once, the same after each start, refused when they are not what they must be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cofferdam.enforce import stores
from cofferdam.enforce.users import FILE, Allotted, Users, read
from cofferdam.errors import GateError, StoreUnfit

ME = os.geteuid()
root_only = pytest.mark.skipif(ME != 0, reason="needs root")


def make(state: Path, *, user: int = ME, shared: bool = False, crew: str = "relay/a-b") -> Path:
    return stores.make(state, crew, "keeper", user, shared=shared)


def test_a_store_is_made_for_one_user_and_found_again(tmp_path: Path) -> None:
    path = make(tmp_path)
    assert path == tmp_path / "stores" / "relay%2Fa-b" / "keeper" == stores.of(tmp_path, "relay/a-b", "keeper")
    assert path.stat().st_mode & 0o777 == 0o700 and path.stat().st_uid == ME
    (path / "queue").write_text("x")
    assert make(tmp_path) == path and (path / "queue").read_text() == "x"
    for user in (ME, None):
        stores.look(tmp_path, "relay/a-b", "keeper", user)
        stores.look(tmp_path, "relay/none", "keeper", user)
    assert stores.owners(tmp_path) == {ME}
    assert stores.owners(tmp_path / "nothing") == frozenset()


def test_a_store_that_others_read_is_open_to_their_group_alone(tmp_path: Path) -> None:
    assert make(tmp_path, shared=True).stat().st_mode & 0o777 == 0o750
    assert make(tmp_path).stat().st_mode & 0o777 == 0o700


def test_crews_names_do_not_meet(tmp_path: Path) -> None:
    names = ["a/b", "a%2Fb", "a/b:2", "a+b", "a#b", "a"]
    assert len({stores.of(tmp_path, name, "keeper") for name in names}) == len(names)
    assert all(stores.of(tmp_path, name, "keeper").parent.parent == tmp_path / "stores" for name in names)


@pytest.mark.parametrize("where", ["stores", "stores/relay%2Fa-b", "stores/relay%2Fa-b/keeper"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, where: str, kind: str) -> None:
    path = tmp_path / where
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("")
    words = "symbolic link" if kind == "link" else "no folder"
    with pytest.raises(StoreUnfit, match=words):
        stores.look(tmp_path, "relay/a-b", "keeper", None)
    with pytest.raises(StoreUnfit, match=words) as caught:
        make(tmp_path)
    assert str(path) in str(caught.value) and str(path) in caught.value.hint
    assert list((tmp_path / "elsewhere").iterdir()) == []


@root_only
def test_a_store_of_another_owner_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = make(tmp_path, user=64010)
    assert (path.stat().st_uid, path.stat().st_gid) == (64010, 64010)
    with pytest.raises(GateError, match="belongs to user 64010, and its part runs as user 64011") as caught:
        make(tmp_path, user=64011)
    assert f"chown -R 64011:64011 {path}" in caught.value.hint
    with pytest.raises(StoreUnfit, match="belongs to user 64010"):
        stores.look(tmp_path, "relay/a-b", "keeper", 64011)
    stores.look(tmp_path, "relay/a-b", "keeper", None)
    os.chown(tmp_path / "stores", 64000, 64000)  # as a gate could have made it first
    with pytest.raises(GateError, match="belongs to user 64000"):
        make(tmp_path, user=64010)


@root_only
@pytest.mark.parametrize("cut_short", [False, True])
def test_what_root_alone_wrote_is_handed_over(tmp_path: Path, cut_short: bool) -> None:
    """By a gate whose parts had no users of their own yet. `cut_short`: a start that was killed in between is gone on
    with. What a link leads to is not given away, and neither is what somebody else owns."""
    path, outside = make(tmp_path), tmp_path / "outside"
    outside.mkdir()
    for file in (path / "store.db", path / "archive" / "a" / "1", outside / "file"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
        file.chmod(0o600)
    (path / "to-file").symlink_to(outside / "file")
    (path / "archive" / "to-folder").symlink_to(outside)
    if cut_short:
        os.chown(path / "store.db", 64010, 64010)
    assert make(tmp_path, user=64010) == path
    within = [path, *path.rglob("*")]
    assert len(within) == 7
    assert {(found.lstat().st_uid, found.lstat().st_gid) for found in within} == {(64010, 64010)}
    assert (path / "store.db").read_text() == "store.db" and (path / "store.db").stat().st_mode & 0o777 == 0o600
    assert {found.stat().st_uid for found in (outside, outside / "file")} == {0}
    os.chown(path / "store.db", 0, 0)  # by somebody, later: what was handed over is not looked through again
    make(tmp_path, user=64010)
    assert (path / "store.db").stat().st_uid == 0
    with pytest.raises(GateError, match="belongs to user 64010"):
        make(tmp_path, user=64011)


def test_a_store_that_its_user_may_not_write_is_refused(tmp_path: Path) -> None:
    make(tmp_path).chmod(0o500)
    with pytest.raises(GateError, match="cannot be written by its own user") as caught:
        make(tmp_path)
    assert "chmod u+rwx" in caught.value.hint
    stores.of(tmp_path, "relay/a-b", "keeper").chmod(0o700)


def test_a_state_folder_that_takes_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GateError, match="cannot be had") as caught:
        make(tmp_path / "file")
    assert "--state" in caught.value.hint


# --- users ------------------------------------------------------------------------------------------------------------


def test_each_name_has_a_user_of_its_own_that_stays(tmp_path: Path) -> None:
    users = Users(64100, 64110)
    first = Allotted(users, tmp_path)
    found = {name: first.of(name) for name in ("a/outer", "a/inner", "b/outer")}
    assert found == {"a/outer": 64102, "a/inner": 64103, "b/outer": 64104}
    again = Allotted(users, tmp_path)  # after a restart, in another order
    assert [again.of(name) for name in ("b/outer", "c/outer", "a/outer")] == [64104, 64105, 64102]
    assert read(tmp_path) == again.known() and (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert not {users.gate, users.auditor, users.probe} & set(again.known().values())


def test_when_all_are_taken_those_are_forgotten_that_nobody_needs(tmp_path: Path) -> None:
    users = Users(64100, 64109)  # seven for parts
    earlier = Allotted(users, tmp_path)
    for number in range(7):
        earlier.of(f"old{number}/outer")
    now = Allotted(users, tmp_path, lambda _: {64103})  # old1 owns a store
    assert now.of("old0/outer") == 64102
    assert now.of("new/outer") == 64104
    assert set(now.known()) == {"old0/outer", "old1/outer", "new/outer"}
    for number in range(4):
        now.of(f"more{number}/outer")
    with pytest.raises(GateError, match="more parts than users") as caught:
        now.of("one too many/outer")
    assert "--users" in caught.value.hint


def test_who_is_new_is_nobody_whose_store_is_there(tmp_path: Path) -> None:
    """The launcher's file is lost: a part that has no store must not become the user of another's."""
    assert stores.owners(tmp_path, "relay/a-b/keeper") == frozenset()
    for place in ("stores/relay%2Fa-b/keeper", "stores/old/spooler"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "stores" / "a file").write_text("")
    assert stores.owners(tmp_path) == {ME}
    assert stores.owners(tmp_path, "relay/a-b/keeper") == stores.owners(tmp_path, "old/spooler") == {ME}
    (tmp_path / "stores/old/spooler").rmdir()
    assert stores.owners(tmp_path, "relay/a-b/keeper") == frozenset()
    owned = {"relay/a-b/keeper": {64103}, "modbus/a-b/outer": {64102, 64103}}
    now = Allotted(Users(64100, 64109), tmp_path, owned.__getitem__)
    assert [now.of(name) for name in reversed(owned)] == [64104, 64102]


def test_another_range_gives_other_users(tmp_path: Path) -> None:
    assert Allotted(Users(64100, 64109), tmp_path).of("a/outer") == 64102
    assert Allotted(Users(64200, 64209), tmp_path).of("a/outer") == 64202
    assert Allotted(Users(64100, 64109), tmp_path).of("a/outer") == 64102


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"users": {"a": "b"}}', '{"users": {}, "more": 1}', "\xff"])
def test_a_damaged_file_is_no_users(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, "latin-1")
    with pytest.raises(GateError, match="cannot be understood") as caught:
        Allotted(Users(), tmp_path).of("a/outer")
    assert "stores" in caught.value.hint
