"""kazoo, the Python client of ZooKeeper, against any server: kazoo_client.py SCENARIO HOST:PORT [ARGUMENT...]

Each scenario ends with status 0 or with a traceback that says which expectation failed. What has to happen to the
server meanwhile is agreed on with the caller by lines: this program says `ready`, the caller says when it is done.

  basics     create, ephemeral, sequential, data, exists and child watches, multi
  reconnect  keeps its ephemerals and watches over a restart of the server: ready, wait for a line, check
  hold PATH  creates an ephemeral and says `ready SESSION`; says `lost` when its session has expired
  fill PATH  writes a tree with everything in it that a server has to keep, says `ready`, keeps its session
  dump       prints every znode as one JSON object
  formats PORT
             expects web/web-1 of 127.0.0.1:PORT in the formats of Curator, Spring, serversets and Nerve, says `there`;
             a line, and all are to go, `gone`; a line, and all are to come back, `back`
  write      does what lines say, ephemerals that go with it, and says `done PATH`: `create PATH DATA`, `sequential PATH DATA`,
             `set PATH DATA`, `delete PATH`; closes its session at the line `end`
"""

import base64
import json
import logging
import queue
import re
import sys
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.protocol.states import EventType
from kazoo.retry import KazooRetry

DEADLINE_S = 30


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    scenario, address, *arguments = sys.argv[1:]
    scenarios = (basics, reconnect, hold, fill, dump, formats, write)
    {function.__name__: function for function in scenarios}[scenario](address, *arguments)


def connect(address, timeout=10.0):
    retry = KazooRetry(max_tries=-1, delay=0.05, backoff=1.5, max_delay=0.5)
    client = KazooClient(hosts=address, timeout=timeout, connection_retry=retry)
    client.start(timeout=DEADLINE_S)
    return client


def say(text):
    print(text, flush=True)


def expect(actual, wanted, what):
    assert actual == wanted, f"{what}: got {actual!r}, wanted {wanted!r}"


def expect_error(error, call, *arguments, **options):
    try:
        result = call(*arguments, **options)
    except error:
        return
    raise AssertionError(f"{call.__name__}{arguments} gave {result!r} instead of {error.__name__}")


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s in vain: {what}"
        time.sleep(0.01)


class Events:
    """Collects what a watch reports."""

    def __init__(self):
        self.queue = queue.Queue()

    def __call__(self, event):
        self.queue.put(event)

    def expect(self, kind, path):
        event = self.queue.get(timeout=DEADLINE_S)
        expect((event.type, event.path), (kind, path), "a watch event")

    def expect_none(self, client):
        # A round trip on the same connection comes after any event that was sent before it.
        client.exists("/")
        time.sleep(0.05)
        assert self.queue.empty(), f"an event too many: {self.queue.get()}"


def basics(address):
    client, other = connect(address), connect(address)
    for step in (plain, ephemeral, sequential, watches, transactions, recipes):
        client.create("/basics")
        step(client, other)
        client.delete("/basics", recursive=True)
        print(f"{step.__name__}: fine", file=sys.stderr)
    other.stop()
    client.stop()


def plain(client, _other):
    expect(client.create("/basics/a", b"one"), "/basics/a", "the created path")
    data, stat = client.get("/basics/a")
    expect(data, b"one", "data")
    expect((stat.version, stat.cversion, stat.aversion, stat.ephemeralOwner), (0, 0, 0, 0), "versions")
    expect((stat.dataLength, stat.numChildren), (3, 0), "sizes")
    expect(stat.czxid, stat.mzxid, "the zxids of a new znode")
    assert abs(stat.ctime / 1000 - time.time()) < 60, f"ctime {stat.ctime}"

    path, created = client.create("/basics/b", b"", include_data=True)
    expect(path, "/basics/b", "the path of create2")
    expect(created, client.exists("/basics/b"), "the stat of create2")
    assert created.czxid > stat.czxid, "zxids rise"

    changed = client.set("/basics/a", b"two", version=0)
    expect((changed.version, changed.czxid), (1, stat.czxid), "after a set")
    assert changed.mzxid > created.czxid
    expect(client.get("/basics/a")[0], b"two", "data after a set")
    expect_error(BadVersionError, client.set, "/basics/a", b"three", version=0)
    expect_error(NoNodeError, client.set, "/basics/none", b"")
    expect_error(NoNodeError, client.get, "/basics/none")
    expect_error(NoNodeError, client.create, "/basics/none/child", b"")
    expect_error(NodeExistsError, client.create, "/basics/a", b"")
    expect(client.exists("/basics/none"), None, "exists of nothing")

    client.create("/basics/a/x")
    expect_error(NotEmptyError, client.delete, "/basics/a")
    expect_error(BadVersionError, client.delete, "/basics/a/x", version=7)
    expect(sorted(client.get_children("/basics")), ["a", "b"], "children")
    children, stat = client.get_children("/basics/a", include_data=True)
    expect((children, stat.numChildren, stat.cversion), (["x"], 1, 1), "children with the stat")
    client.delete("/basics/a/x", version=0)
    expect(client.exists("/basics/a").cversion, 2, "cversion counts creates and deletes")
    expect_error(NoNodeError, client.delete, "/basics/a/x")

    big = bytes(range(256)) * 3900
    client.create("/basics/big", big)
    expect(client.get("/basics/big")[0], big, "almost a mebibyte of data")
    client.create("/basics/grüße-世界", "grüße".encode())
    expect(client.get("/basics/grüße-世界")[0], "grüße".encode(), "data under a name beyond ASCII")
    expect(client.sync("/basics"), "/basics", "sync")


def ephemeral(client, other):
    other.create("/basics/e", b"alive", ephemeral=True)
    expect(client.exists("/basics/e").ephemeralOwner, other.client_id[0], "the owner of an ephemeral")
    expect_error(NoChildrenForEphemeralsError, client.create, "/basics/e/child")

    guest = connect(client.hosts[0][0] + ":" + str(client.hosts[0][1]))
    guest.create("/basics/g1", ephemeral=True)
    guest.create("/basics/g2", ephemeral=True)
    gone = Events()
    assert client.exists("/basics/g1", watch=gone)
    guest.stop()
    gone.expect(EventType.DELETED, "/basics/g1")
    expect(client.get_children("/basics"), ["e"], "what the closed session left")


def sequential(client, _other):
    client.create("/basics/s")
    first = client.create("/basics/s/n-", b"", sequence=True)
    second = client.create("/basics/s/n-", b"", sequence=True)
    client.create("/basics/s/plain")
    third = client.create("/basics/s/", b"", sequence=True, ephemeral=True)
    expect(first, "/basics/s/n-0000000000", "the first of a sequence")
    expect(second, "/basics/s/n-0000000001", "the second of a sequence")
    expect(third, "/basics/s/0000000003", "every create counts")
    expect(client.exists(third).ephemeralOwner, client.client_id[0], "an ephemeral sequential's owner")
    client.delete(second)
    fourth = client.create("/basics/s/n-", b"", sequence=True)
    expect(fourth, "/basics/s/n-0000000004", "deletes do not count")


def watches(client, other):
    client.create("/basics/w", b"0")
    data, missing, child = Events(), Events(), Events()
    client.get("/basics/w", watch=data)
    expect(client.exists("/basics/new", watch=missing), None, "a znode not yet there")
    client.get_children("/basics/w", watch=child)

    other.set("/basics/w", b"1")
    data.expect(EventType.CHANGED, "/basics/w")
    other.set("/basics/w", b"2")
    data.expect_none(client)
    child.expect_none(client)

    other.create("/basics/new")
    missing.expect(EventType.CREATED, "/basics/new")
    other.create("/basics/w/c")
    child.expect(EventType.CHILD, "/basics/w")
    other.create("/basics/w/d")
    child.expect_none(client)

    client.get_children("/basics/w", watch=child)
    other.delete("/basics/w/c")
    child.expect(EventType.CHILD, "/basics/w")
    client.get("/basics/w/d", watch=data)
    client.get_children("/basics/w/d", watch=child)
    other.delete("/basics/w/d")
    data.expect(EventType.DELETED, "/basics/w/d")
    child.expect(EventType.DELETED, "/basics/w/d")

    # The event comes before the reply that shows the change.
    seen = []
    client.get("/basics/w", watch=lambda event: seen.append(event))
    other.set("/basics/w", b"3")
    while client.get("/basics/w")[0] != b"3":
        pass
    wait_until(lambda: seen, "the event before the new data")


def transactions(client, _other):
    client.create("/basics/t", b"0")
    good = client.transaction()
    good.create("/basics/t/a", b"a")
    good.set_data("/basics/t", b"1", version=0)
    good.check("/basics/t", version=1)
    good.create("/basics/t/s-", b"", sequence=True)
    good.create("/basics/t/e", b"", ephemeral=True)
    good.create("/basics/t/gone", b"")
    good.delete("/basics/t/gone")
    results = good.commit()
    expect(results[0], "/basics/t/a", "the first result of a transaction")
    expect(results[1].version, 1, "the stat of a set within a transaction")
    expect(results[2], True, "a check within a transaction")
    expect(results[3], "/basics/t/s-0000000001", "a sequential create within a transaction")
    expect(results[6], True, "a delete within a transaction")
    expect(sorted(client.get_children("/basics/t")), ["a", "e", "s-0000000001"], "what a transaction made")
    expect(client.exists("/basics/t/a").czxid, client.exists("/basics/t").mzxid, "one zxid for all")

    bad = client.transaction()
    bad.create("/basics/t/b", b"")
    bad.set_data("/basics/t", b"2")
    bad.check("/basics/t", version=99)
    bad.delete("/basics/t/a")
    results = bad.commit()
    expect(
        [type(result) for result in results],
        [RolledBackError, RolledBackError, BadVersionError, RuntimeInconsistency],
        "the results of a failed transaction",
    )
    expect(client.exists("/basics/t/b"), None, "a create of a failed transaction")
    expect(client.get("/basics/t")[0], b"1", "data after a failed transaction")
    assert client.exists("/basics/t/a")
    # The number that the failed transaction would have taken is not used up.
    expect(client.create("/basics/t/s-", b"", sequence=True), "/basics/t/s-0000000004", "the next number")


def recipes(client, other):
    inside = threading.Lock()
    order = []

    def enter(who, name):
        with who.Lock("/basics/lock", name):
            assert inside.acquire(blocking=False), "two clients hold one lock"
            order.append(name)
            time.sleep(0.05)
            inside.release()

    threads = [threading.Thread(target=enter, args=(who, n)) for n, who in (("a", client), ("b", other))]
    [thread.start() for thread in threads]
    [thread.join(DEADLINE_S) for thread in threads]
    expect(sorted(order), ["a", "b"], "who held the lock")


def reconnect(address):
    client = connect(address, timeout=20.0)
    states = []
    client.add_listener(states.append)
    client.create("/reconnect", b"", makepath=True)
    client.create("/reconnect/e", b"", ephemeral=True)
    session = client.client_id
    # kazoo drops plain watches with the connection; its recipes read and watch again.
    data, children = [], []
    client.DataWatch("/reconnect", lambda value, _stat: data.append(value))
    client.ChildrenWatch("/reconnect", children.append)

    say("ready")
    sys.stdin.readline()
    wait_until(lambda: KazooState.SUSPENDED in states, "the connection breaks")
    wait_until(lambda: client.connected, "the client is connected again")

    assert KazooState.LOST not in states, f"the session was lost: {states}"
    expect(client.client_id[0], session[0], "the session")
    expect(client.exists("/reconnect/e").ephemeralOwner, session[0], "the owner of the ephemeral")
    other = connect(address)
    other.set("/reconnect", b"changed")
    wait_until(lambda: data[-1] == b"changed", "the data watch reports a change")
    other.create("/reconnect/f")
    wait_until(lambda: sorted(children[-1]) == ["e", "f"], "the child watch reports a change")
    other.stop()
    client.stop()
    client = connect(address)
    expect(client.get_children("/reconnect"), ["f"], "what the session left when it was closed")
    client.delete("/reconnect", recursive=True)
    client.stop()
    say("fine")


def hold(address, path):
    lost = threading.Event()
    client = connect(address, timeout=4.0)
    client.add_listener(lambda state: lost.set() if state == KazooState.LOST else None)
    client.create(path, b"", ephemeral=True)
    say(f"ready {client.client_id[0]:#x}")
    lost.wait()
    say("lost")
    wait_until(lambda: client.connected, "the client has a new session")
    say(f"again {client.client_id[0]:#x}")


def fill(address, root):
    client = connect(address, timeout=10.0)
    for branch in range(5):
        client.create(f"{root}/branch{branch}", f"branch {branch}".encode(), makepath=True)
        for leaf in range(40):
            client.create(f"{root}/branch{branch}/leaf", bytes([branch, leaf]) * leaf, sequence=True)
    for leaf in client.get_children(f"{root}/branch1")[::2]:
        client.delete(f"{root}/branch1/{leaf}")
    for turn in range(30):
        client.set(f"{root}/branch2", f"turn {turn}".encode())
    many = client.transaction()
    for number in range(20):
        many.create(f"{root}/branch3/multi{number}", b"together")
        many.set_data(f"{root}/branch3", str(number).encode())
    many.commit()
    failed = client.transaction()
    failed.create(f"{root}/never", b"")
    failed.check(root, version=99)
    failed.commit()
    expect_error(NoNodeError, client.delete, f"{root}/never")
    client.create(f"{root}/empty", b"")
    client.create(f"{root}/big", b"\x00\xff" * 200_000)
    client.create(f"{root}/grüße", "世界".encode())
    closed = connect(address)
    closed.create(f"{root}/closed", b"", ephemeral=True)
    closed.stop()
    for number in range(5):
        client.create(f"{root}/ephemeral", str(number).encode(), ephemeral=True, sequence=True)
    say(f"ready {client.client_id[0]:#x}")
    sys.stdin.readline()


def dump(address):
    client = connect(address)
    znodes = {}
    paths = ["/"]
    while paths:
        path = paths.pop()
        data, stat = client.get(path)
        children = client.get_children(path)
        expect(stat.numChildren, len(children), f"the number of children of {path}")
        znodes[path] = {
            "data": None if data is None else base64.b64encode(data).decode(),
            "acl": [[acl.perms, acl.id.scheme, acl.id.id] for acl in client.get_acls(path)[0]],
            **{name: getattr(stat, name) for name in stat._fields},
        }
        paths += [path.rstrip("/") + "/" + child for child in children]
    client.stop()
    say(json.dumps(znodes, sort_keys=True))


OWN = "/rollcall/services/default/web/web-1"
CURATOR = "/discovery/Web.App"
SPRING = "/services/web"
SERVERSET = "/aurora/www/prod/web"
NERVE = "/nerve/web"


def formats(address, port):
    client = connect(address)
    first = expect_formats(client, int(port))
    say("there")
    sys.stdin.readline()
    wait_until(lambda: own_status(client) == "failing", "the instance fails")
    expect_no_formats(client)
    say("gone")
    sys.stdin.readline()
    second = expect_formats(client, int(port))
    for format in ("serverset", "nerve"):
        assert second[format] > first[format], f"{format}: {second[format]} comes after {first[format]}"
    say("back")
    client.stop()


def own_status(client):
    return json.loads(client.get(OWN)[0])["status"] if client.exists(OWN) else None


def expect_formats(client, port):
    """Expects every format, field by field; returns the names of the znodes."""
    wait_until(lambda: own_status(client) == "up", "the instance is up")
    own, stat = client.get(OWN)
    registered = json.loads(own)["registered_at_ms"]
    names = {}
    for format, parent in (("curator", CURATOR), ("spring", SPRING), ("serverset", SERVERSET), ("nerve", NERVE)):
        (names[format],) = client.get_children(parent)
    expect((names["curator"], names["spring"]), ("web-1", "web-1"), "the names without a number")
    assert re.fullmatch(r"member_\d{10}", names["serverset"]), names
    assert re.fullmatch(r"web-1_\d{10}", names["nerve"]), names

    def variable(value):
        return {"value": value, "variable": True}

    def literal(value):
        return {"value": value, "variable": False}

    parts = [variable("scheme"), literal("://"), variable("address"), literal(":"), variable("port")]
    instance = {
        "name": "Web.App",
        "id": "web-1",
        "address": "127.0.0.1",
        "port": port,
        "sslPort": None,
        "payload": None,
        "registrationTimeUTC": registered,
        "serviceType": "DYNAMIC",
        "uriSpec": {"parts": parts},
    }
    payload = {
        "@class": "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
        "id": "web-1",
        "name": "web",
        "metadata": {"instance_status": "UP", "version": "7", "zone": "zone-a"},
    }
    endpoint = {"host": "127.0.0.1", "port": port}
    wanted = {
        f"{CURATOR}/{names['curator']}": instance,
        f"{SPRING}/{names['spring']}": {**instance, "name": "web", "payload": payload},
        f"{SERVERSET}/{names['serverset']}": {
            "serviceEndpoint": endpoint,
            "additionalEndpoints": {"http": endpoint, "admin": {"host": "127.0.0.1", "port": 8041}},
            "status": "ALIVE",
            "shard": 3,
        },
        f"{NERVE}/{names['nerve']}": {
            "host": "127.0.0.1",
            "port": port,
            "name": "web-1",
            "weight": 10,
            "labels": {"az": "zone-a", "version": "7"},
        },
    }
    for path, fields in wanted.items():
        data, found = client.get(path)
        # Pairs in order: the reader of a format may be as old as the format.
        expect(json.loads(data, object_pairs_hook=list), pairs(fields), path)
        expect(found.ephemeralOwner, stat.ephemeralOwner, f"the session of {path}")
        expect(found.czxid, stat.czxid, f"{path} was created together with the record")
    expect_empty_parents(client)
    return names


def pairs(value):
    if isinstance(value, dict):
        return [(key, pairs(inner)) for key, inner in value.items()]
    return [pairs(inner) for inner in value] if isinstance(value, list) else value


def expect_empty_parents(client):
    """What has data is taken for an instance by readers such as Prometheus."""
    for parent in (CURATOR, SPRING, SERVERSET, NERVE):
        names = parent.split("/")
        for length in range(2, len(names) + 1):
            path = "/".join(names[:length])
            data, stat = client.get(path)
            expect((data, stat.ephemeralOwner), (b"", 0), f"{path}, above the instances")


def expect_no_formats(client):
    failed = client.exists(OWN).czxid
    for parent in (CURATOR, SPRING, SERVERSET, NERVE):
        expect(client.get_children(parent), [], f"what is left below {parent}")
        expect(client.exists(parent).pzxid, failed, f"{parent} lost it as the record changed")


def write(address):
    client = connect(address)
    calls = {
        "create": lambda path, data: client.create(path, data, ephemeral=True, makepath=True),
        "sequential": lambda path, data: client.create(path, data, ephemeral=True, sequence=True, makepath=True),
        "set": lambda path, data: client.set(path, data) and path,
        "delete": lambda path, _data: client.delete(path) and path,
    }
    for line in iter(sys.stdin.readline, "end\n"):
        call, path, *data = line.rstrip("\n").split(" ", 2)
        say(f"done {calls[call](path, ' '.join(data).encode())}")
    client.stop()


if __name__ == "__main__":
    main()
