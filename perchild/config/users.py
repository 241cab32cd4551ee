"""The system's users and groups.

Runs as: compile, or whoever calls perchildd.  Trusts: the databases that the system's administrator has set up.
Before: load.py
"""

from __future__ import annotations

import grp
import os
import pwd
import re


class SystemUsers:
    """The system's users and groups. The files are read once as a whole; other sources are asked for what is not in them."""

    def __init__(self) -> None:
        self._users: dict[str, tuple[int, int]] = {}
        self._names: dict[int, str] = {}
        self._homes: dict[int, str] = {}
        self._groups: dict[str, int] = {}
        self._group_names: dict[int, str] = {}
        self._members: dict[str, set[int]] = {}
        self._is_files_only = _is_files_only()
        for user in pwd.getpwall():
            self._users.setdefault(user.pw_name, (user.pw_uid, user.pw_gid))
            self._names.setdefault(user.pw_uid, user.pw_name)
            self._homes.setdefault(user.pw_uid, user.pw_dir)
        for group in grp.getgrall():
            self._groups.setdefault(group.gr_name, group.gr_gid)
            self._group_names.setdefault(group.gr_gid, group.gr_name)
            for member in group.gr_mem:
                self._members.setdefault(member, set()).add(group.gr_gid)

    def user(self, name: str) -> tuple[int, int] | None:
        """Return (uid, primary gid) of a user name."""
        found = self._users.get(name)
        if found is None and not self._is_files_only:
            try:
                entry = pwd.getpwnam(name)
            except (KeyError, ValueError):
                return None
            return entry.pw_uid, entry.pw_gid
        return found

    def user_name(self, uid: int) -> str | None:
        """Return the name of a uid."""
        name = self._names.get(uid)
        if name is None and not self._is_files_only:
            try:
                return pwd.getpwuid(uid).pw_name
            except (KeyError, OverflowError):
                return None
        return name

    def home(self, uid: int) -> str | None:
        """Return the home directory of a uid."""
        home = self._homes.get(uid)
        if home is None and not self._is_files_only:
            try:
                return pwd.getpwuid(uid).pw_dir
            except (KeyError, OverflowError):
                return None
        return home

    def group(self, name: str) -> int | None:
        """Return the gid of a group name."""
        gid = self._groups.get(name)
        if gid is None and not self._is_files_only:
            try:
                return grp.getgrnam(name).gr_gid
            except (KeyError, ValueError):
                return None
        return gid

    def group_name(self, gid: int) -> str | None:
        """Return the name of a gid."""
        name = self._group_names.get(gid)
        if name is None and not self._is_files_only:
            try:
                return grp.getgrgid(gid).gr_name
            except (KeyError, OverflowError):
                return None
        return name

    def groups(self, name: str, gid: int) -> tuple[int, ...]:
        """Return the supplementary groups of a user whose primary group is gid, sorted, without gid."""
        if self._is_files_only:
            return tuple(sorted(self._members.get(name, set()) - {gid}))
        try:
            return tuple(sorted(set(os.getgrouplist(name, gid)) - {gid}))
        except OSError:
            return ()


def _is_files_only() -> bool:
    """Tell whether users and groups can only come from files, so that a full reading of them is all there is."""
    try:
        with open("/etc/nsswitch.conf", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return False
    sources: set[str] = set()
    for key, value in re.findall(r"^\s*(passwd|group|initgroups)\s*:([^#\n]*)", text, re.MULTILINE):
        del key
        sources |= {word for word in value.split() if not word.startswith("[")}
    if not sources <= {"files", "compat", "systemd"} or not sources:
        return False
    return "systemd" not in sources or not any(
        os.path.isdir(path) and os.listdir(path) for path in ("/etc/userdb", "/run/userdb", "/run/host/userdb", "/usr/lib/userdb"))
