"""Layers that go wrong easily, by what is awkward about them: each on top of `BASE`."""

from tests.support.layers import entry, tar

CAPABILITY = b"\x01\0\0\x02\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")
"""cap_net_bind_service+ep, as the kernel keeps it."""

BASE_ENTRIES = [
    entry("./", "dir", mode=0o751, uid=7, gid=8),
    entry("usr", "dir"), entry("usr/lib", "dir", mode=0o711, uid=5, gid=6, mtime=1_500_000_000),
    entry("lib", "symlink", linkname="usr/lib"), entry("usr/lib/old", content=b"old"),
    entry("etc", "dir", mode=0o700, uid=1, gid=2, xattrs={"user.origin": "base"}),
    entry("etc/a", content=b"a", mode=0o640, uid=3, gid=4), entry("etc/b", content=b"b"),
    entry("opt", "dir"), entry("opt/x", content=b"x"), entry("opt/sub", "dir"), entry("opt/sub/y", content=b"y"),
    entry("var", "dir"), entry("var/run", "symlink", linkname="/run"), entry("run", "dir", mode=0o1777),
]  # fmt: skip
BASE = tar(*BASE_ENTRIES)

UPPER = {
    "files in a directory that the layer never names": [
        entry("etc/new", content=b"new"),
        entry("usr/lib/deep/er/f", content=b"1"),
    ],
    "names through links of the layer below": [
        entry("lib/x", content=b"x"),
        entry("lib/modules", "dir", mode=0o700),
        entry("lib/modules/m", content=b"m"),
        entry("var/run/lock", content=b"l"),
        entry("lib/.wh.old"),
    ],
    "a directory in place of a link": [entry("lib", "dir", mode=0o750), entry("lib/x", content=b"x")],
    "a hard link to a file below": [
        entry("etc/hard", "hardlink", linkname="etc/a"),
        entry("zz", "hardlink", linkname="/etc/a"),
    ],
    "a hard link through a link below": [entry("hard", "hardlink", linkname="lib/old")],
    "hard links in the layer": [
        entry("f", content=b"f", mode=0o4755),
        entry("d", "dir"),
        entry("d/g", "hardlink", linkname="f"),
        entry("d/h", "hardlink", linkname="d/g"),
        entry("s", "symlink", linkname="nowhere"),
        entry("t", "hardlink", linkname="s"),
    ],
    "a whiteout before and after what replaces it": [
        entry("etc/.wh.a"),
        entry("etc/a", content=b"again"),
        entry("etc/b", content=b"again"),
        entry("etc/.wh.b"),
    ],
    "a whiteout of a directory that comes again": [
        entry(".wh.opt"),
        entry("opt", "dir", mode=0o700),
        entry("opt/z", content=b"z"),
    ],
    "a whiteout of a directory that comes again unnamed": [entry(".wh.opt"), entry("opt/sub/z", content=b"z")],
    "an opaque directory": [entry("opt", "dir"), entry("opt/.wh..wh..opq"), entry("opt/only", content=b"o")],
    "an opaque directory, marked last": [entry("opt/only", content=b"o"), entry("opt/sub", "dir"), entry("opt/.wh..wh..opq")],
    "an opaque root": [entry(".wh..wh..opq"), entry("etc", "dir"), entry("etc/only", content=b"o"), entry("new", content=b"n")],
    "whiteouts of nothing": [
        entry(".wh.never"),
        entry("etc/.wh.never"),
        entry("never/.wh.ever"),
        entry("nowhere/.wh..wh..opq"),
    ],
    "a directory that becomes a file": [entry("opt", content=b"file")],
    "a file that becomes a directory": [entry("etc/a", "dir"), entry("etc/a/in", content=b"i")],
    "a file, a directory, a file in one layer": [
        entry("opt", content=b"1"),
        entry("opt", "dir"),
        entry("opt/n", content=b"n"),
        entry("etc/a", "dir"),
        entry("etc/a/b", "dir"),
        entry("etc/a", content=b"2"),
    ],
    "a link of the layer that leads to nothing yet": [
        entry("there", "symlink", linkname="opt/not/yet"),
        entry("there/f", content=b"f"),
        entry("up", "symlink", linkname="../../etc"),
        entry("up/g", content=b"g"),
        entry("abs", "symlink", linkname="/opt"),
        entry("abs/h", content=b"h"),
    ],
    "special files": [
        entry("null", "char", devmajor=1, devminor=3, mode=0o666),
        entry("sda", "block", devmajor=8, devminor=0, mode=0o660, gid=6),
        entry("pipe", "fifo", mode=0o600, uid=9),
    ],
    "set-id bits, capabilities, attributes": [
        entry("su", content=b"s", mode=0o4755),
        entry("sg", content=b"s", mode=0o2755, gid=42),
        entry("grp", "dir", mode=0o2775, gid=50),
        entry("grp/in", content=b"i", gid=0),
        entry("cap", content=b"c", uid=1, xattrs={"security.capability": CAPABILITY}),
        entry("attr", content=b"a", xattrs={"user.one": "1", "trusted.two": "2"}),
        entry("dattr", "dir", xattrs={"user.d": "d"}),
    ],
    "times": [
        entry("old", content=b"o", mtime=1),
        entry("frac", content=b"f", mtime=1234567890.25),
        entry("zero", "dir", mtime=0),
        entry("l", "symlink", linkname="old", mtime=12345.5),
    ],
    "names": [
        entry("n" * 255, content=b"1"),
        entry("/".join(["d" * 100] * 20) + "/f", content=b"2"),
        entry("sp ace\n\t", content=b"3"),
        entry("./dot/./f", content=b"4"),
        entry("/abs", content=b"5"),
        entry("up/../down", content=b"6"),
        entry(".hidden", content=b""),
        entry("…/é", content=b"7"),
        entry("link" * 30, "symlink", linkname="t" * 2000),
    ],
    "the same name again and again": [entry("f", content=b"%d" % n, mode=0o600 + n) for n in range(5)],
    "nothing at all": [],
}
