#!/usr/bin/python3
"""Tests the practice server with slixmpp, an independent client.

usage: server_client.py PORT

The server must let alice, bob and carol in with their names as passwords.
Prints a line per check and exits with status 0 if all have passed. A check
waits for the expected stanzas for at most PATIENCE seconds.
"""
import asyncio
import logging
import os
import sys
import xml.etree.ElementTree as ET

import slixmpp
from slixmpp.exceptions import IqError
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

PATIENCE = 10
HOST = "localhost"
MUC = "{http://jabber.org/protocol/muc}x"
USER = "{http://jabber.org/protocol/muc#user}"
TAG = os.urandom(4).hex()  # so that a second run on the same server finds fresh names
ROOM = "Tea-%s@conference.%s" % (TAG, HOST)
HEADER = ("<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='jabber:client' "
          "xmlns:stream='http://etherx.jabber.org/streams'>" % HOST)
FORM = ("<query xmlns='http://jabber.org/protocol/muc#owner'>"
        "<x xmlns='jabber:x:data' type='submit'/></query>")
passed = failed = 0


class Client(slixmpp.ClientXMPP):
    """Logs in, and keeps all stanzas that arrive in one list, `seen`."""

    def __init__(self, port, user, resource, mechanism=None, password=None):
        super().__init__("%s@%s/%s" % (user, HOST, resource), password or user, sasl_mech=mechanism)
        for plugin in ("xep_0030", "xep_0045", "xep_0199"):
            self.register_plugin(plugin)
        # there is no TLS, which slixmpp accepts only if it is told to
        self["feature_mechanisms"].unencrypted_plain = True
        self["feature_mechanisms"].unencrypted_scram = True
        self.auto_authorize = self.auto_subscribe = None
        self.seen, self.news, self.state, self.held = [], asyncio.Event(), None, b""
        # all stanzas, also those that slixmpp's own events leave out
        for name in ("message", "presence"):
            self.register_handler(Callback("all " + name, MatchXPath("{jabber:client}" + name), self.see))
        self.add_event_handler("session_start", lambda _: self.change("online"))
        self.add_event_handler("failed_auth", lambda _: self.change("refused"))
        self.connect(("127.0.0.1", port), use_ssl=False, force_starttls=False, disable_starttls=True)

    def data_received(self, data):
        """Collects whole tags. Newer versions of the parser, expat, delay a tag that
        arrives in very small pieces (the server's -c), because it may be an attack."""
        self.held += data
        if self.held.endswith(b">"):
            held, self.held = self.held, b""
            super().data_received(held)

    def see(self, stanza):
        self.seen.append(stanza.xml)
        self.news.set()

    def change(self, state):
        self.state = self.state or state
        self.news.set()

    async def until(self, what):
        while not what():
            self.news.clear()
            await self.news.wait()
        return what()

    async def login(self, roster=True):
        await self.until(lambda: self.state)
        assert self.state == "online", self.state
        if roster:
            await self.get_roster()
        self.send_presence()
        await self.expect(lambda e: is_(e, "presence", sender=self.boundjid.full))
        return self

    async def expect(self, fits):
        """Returns the first stanza that fits. It and those before it are forgotten."""
        def find():
            return next((i + 1 for i, e in enumerate(self.seen) if fits(e)), 0)
        n = await self.until(find)
        stanza, self.seen = self.seen[n - 1], self.seen[n:]
        return stanza

    async def collect(self, fits):
        """Returns all stanzas up to and including the first that fits."""
        def find():
            return next((i + 1 for i, e in enumerate(self.seen) if fits(e)), 0)
        n = await self.until(find)
        stanzas, self.seen = self.seen[:n], self.seen[n:]
        return stanzas

    async def barrier(self):
        """Waits until the server has handled all that was sent, and its answers have arrived."""
        await self["xep_0199"].ping(HOST, timeout=PATIENCE)


def is_(e, tag, sender=None, kind=None, body=None):
    return (e.tag == "{jabber:client}" + tag and (sender is None or e.get("from") == sender)
            and (kind is None or e.get("type", "") == kind)
            and (body is None or e.findtext("{jabber:client}body") == body))


def codes(e):
    return sorted(s.get("code") for s in e.iter(USER + "status"))


def is_subject(e):
    return is_(e, "message", kind="groupchat") and e.find("{jabber:client}subject") is not None


def join_text(room, nick):
    return "<presence to='%s/%s'><x xmlns='http://jabber.org/protocol/muc'/></presence>" % (room, nick)


async def join(client, nick, room=ROOM):
    client.send_raw(join_text(room, nick))
    got = await client.collect(lambda e: is_subject(e) or is_(e, "presence", kind="error"))
    return [e for e in got if e.get("from").startswith(room.lower() + "/") or e is got[-1]]


async def check(what, test):
    """Runs one check, a coroutine. An assertion that fails shows what it has seen."""
    global passed, failed
    try:
        result = await asyncio.wait_for(test, PATIENCE)
        passed += 1
        print("ok - " + what, flush=True)
        return result
    except Exception as error:
        failed += 1
        print("FAIL - %s: %s %s" % (what, type(error).__name__, error), flush=True)


class Raw:
    """A connection without a library, for details that slixmpp hides."""

    def __init__(self, port):
        self.port, self.got = port, b""

    async def ask(self, text, end):
        if not hasattr(self, "writer"):
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(text if isinstance(text, bytes) else text.encode())
        while end.encode() not in self.got:
            more = await self.reader.read(4096)
            assert more, "closed after %r" % self.got
            self.got += more
        text, self.got = self.got.decode(), b""
        return text

    async def closed(self):
        while await self.reader.read(4096):
            pass
        self.writer.close()


# ------------------------------------------------------------------- Login

async def registration(port):
    raw, name = Raw(port), "new" + TAG
    got = await raw.ask(HEADER, "</stream:features>")
    assert "iq-register" in got, got
    form = "<iq type='%s' id='r1'><query xmlns='jabber:iq:register'>%s</query></iq>"
    got = await raw.ask(form % ("get", ""), "</iq>")
    assert "<username/>" in got and "<password/>" in got, got
    wish = "<username>%s</username><password>secret</password>" % name
    got = await raw.ask(form % ("set", wish), "/>")
    assert "type='result'" in got, got
    got = await raw.ask(form % ("set", wish), "</iq>")
    assert "<conflict" in got, got
    got = await raw.ask(form % ("set", "<username>x</username>"), "</iq>")
    assert "<bad-request" in got, got
    await raw.ask("</stream:stream>", "</stream:stream>")
    await raw.closed()
    client = await Client(port, name, "r", password="secret").login()
    client.disconnect()


async def wrong_password(port, mechanism):
    client = Client(port, "alice", "wrong", mechanism, password="not it")
    await client.until(lambda: client.state)
    assert client.state == "refused", client.state
    client.abort()


async def stream_error(port, text, condition):
    raw = Raw(port)
    got = await raw.ask(text, "</stream:stream>")
    assert "<%s xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>" % condition in got, got
    assert got.startswith("<?xml version='1.0'?><stream:stream "), got
    await raw.closed()


async def sasl_failure(port, auth, condition):
    raw = Raw(port)
    got = await raw.ask(HEADER + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' " + auth, "</failure>")
    assert "<%s/>" % condition in got, got
    raw.writer.close()


async def many_tries(port):
    raw = Raw(port)
    wrong = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>"
    got = await raw.ask(HEADER + 5 * wrong, "</stream:stream>")
    assert got.count("<not-authorized/>") == 5 and "<policy-violation" in got, got
    await raw.closed()


async def same_resource(port):
    one = await Client(port, "carol", "twin").login()
    gone = asyncio.Event()
    one.add_event_handler("stream_error", lambda e: gone.set() if e["condition"] == "conflict" else None)
    two = await Client(port, "carol", "twin").login()
    await gone.wait()
    two.disconnect()


async def logins(port):
    for mechanism in ("PLAIN", "SCRAM-SHA-1"):
        await check("a wrong password is refused, " + mechanism, wrong_password(port, mechanism))
    await check("registration, then login", registration(port))
    await check("same resource again: the old session gets a conflict", same_resource(port))
    for what, auth, condition in (
            ("unknown mechanism", "mechanism='X-NONE'>AA==</auth>", "invalid-mechanism"),
            ("not base64", "mechanism='PLAIN'>***</auth>", "incorrect-encoding"),
            ("empty PLAIN", "mechanism='PLAIN'/>", "malformed-request"),
            ("PLAIN without a password", "mechanism='PLAIN'>AGFsaWNl</auth>", "malformed-request"),
            ("SCRAM without a nonce", "mechanism='SCRAM-SHA-1'>biwsbj1hbGljZQ==</auth>", "malformed-request")):
        await check("login, %s: %s" % (what, condition), sasl_failure(port, auth, condition))
    await check("five wrong passwords: policy-violation", many_tries(port))
    for what, text, condition in (
            ("garbage", "GET / HTTP/1.0\r\n\r\n", "not-well-formed"),
            ("not UTF-8", HEADER.encode() + b"<message><body>\xff\xfe", "not-well-formed"),
            ("a comment", HEADER + "<!-- -->", "restricted-xml"),
            ("another host", HEADER.replace("to='localhost'", "to='example.org'"), "host-unknown"),
            ("a message before the login", HEADER + "<message/>", "not-authorized"),
            ("an iq before the login", HEADER + "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "not-authorized"),
            ("an unknown element", HEADER + "<what/>", "unsupported-stanza-type")):
        await check("stream error, %s: %s" % (what, condition), stream_error(port, text, condition))


# ---------------------------------------------------- Messages, questions

async def chat(a, b):
    text = "a < b & 'c' \"d\"\n\t\u00e9\u4e16\U0001f600"
    a.send_message(mto=b.boundjid.full, mbody=text, mtype="chat")
    e = await b.expect(lambda e: is_(e, "message", a.boundjid.full, "chat", text))
    assert e.get("to") == b.boundjid.full
    b.send_message(mto=a.boundjid.bare, mbody="back", mtype="chat")
    await a.expect(lambda e: is_(e, "message", b.boundjid.full, "chat", "back"))


async def payload(a, b):
    a.send_raw("<message to='%s' from='eve@x' id='p' xml:lang='de'><body>x</body><y xmlns='urn:y' a=\"it's\" xmlns:q='urn:q' q:b='&lt;'>"
                "<z xmlns=''/>t<w><![CDATA[<]]></w></y></message>" % b.boundjid.full)
    e = await b.expect(lambda e: is_(e, "message", a.boundjid.full))
    y = e.find("{urn:y}y")
    assert e.get("id") == "p" and e.get("{http://www.w3.org/XML/1998/namespace}lang") == "de", ET.tostring(e)
    assert y.get("a") == "it's" and y.get("{urn:q}b") == "<", ET.tostring(e)
    assert y.find("z") is not None and y.findtext("{urn:y}w") == "<", ET.tostring(e)


async def bounced(a, to, kind, condition="service-unavailable"):
    a.send_message(mto=to, mbody="anybody?", mtype=kind)
    e = await a.expect(lambda e: is_(e, "message", to, "error"))
    assert e.find(".//{urn:ietf:params:xml:ns:xmpp-stanzas}" + condition) is not None, ET.tostring(e)


async def no_error_for_errors(a):
    a.send_raw("<message to='nobody@localhost' type='error'><error type='cancel'/></message>"
                "<message to='nobody@localhost' type='headline'><body>x</body></message>"
                "<iq to='nobody@localhost' type='result' id='zz'/><iq to='nobody@localhost/x' type='error' id='zz'/>"
                "<presence to='nobody@localhost'/>")
    await a.barrier()
    assert not a.seen, [ET.tostring(e) for e in a.seen]


async def ping(a, b):
    for to in (HOST, "conference." + HOST, a.boundjid.bare, b.boundjid.bare, b.boundjid.full):
        await a["xep_0199"].ping(to, timeout=PATIENCE)


async def refused(a, to, kind, query, condition):
    iq = a.make_iq(itype=kind, ito=to)
    iq.append(ET.fromstring(query))
    try:
        await iq.send()
    except IqError as error:
        assert error.condition == condition, error.condition
    else:
        raise AssertionError("a result")


async def messages(a, b):
    await check("chat, to the full and to the bare JID", chat(a, b))
    await check("namespaces and a forged sender", payload(a, b))
    for to in ("nobody@localhost", "bob@localhost/none", "x@example.org", HOST):
        await check("a message to %s bounces" % to, bounced(a, to, "chat"))
    await check("no error for an error", no_error_for_errors(a))
    await check("ping", ping(a, b))
    unknown, roster = "<query xmlns='urn:unknown'/>", "<query xmlns='jabber:iq:roster'/>"
    for to in (HOST, "nobody@localhost", "bob@localhost/none", "conference.localhost", "none@conference.localhost"):
        await check("unknown iq to %s: an error" % to, refused(a, to, "get", unknown, "service-unavailable"))
    await check("bob's roster is not for alice", refused(a, "bob@localhost", "get", roster, "service-unavailable"))


# ---------------------------------------------------------------- Presence

async def subscription(a, b):
    """Subscriptions are passed on, with bare JIDs."""
    for kind, sender, receiver in (("subscribe", a, b), ("subscribed", b, a),
                                   ("unsubscribe", a, b), ("unsubscribed", b, a)):
        sender.send_presence(pto=receiver.boundjid.bare, ptype=kind)
        e = await receiver.expect(lambda e: is_(e, "presence", kind=kind))
        assert (e.get("from"), e.get("to")) == (sender.boundjid.bare, receiver.boundjid.bare), ET.tostring(e)


async def own_presence(port, a):
    """A session is told about the other sessions of its account."""
    other = await Client(port, "alice", "other").login()
    await a.expect(lambda e: is_(e, "presence", other.boundjid.full, ""))
    other.send_presence(ptype="unavailable")
    await a.expect(lambda e: is_(e, "presence", other.boundjid.full, "unavailable"))
    a.send_message(mto=a.boundjid.bare, mbody="to all of alice", mtype="chat")
    await a.expect(lambda e: is_(e, "message", body="to all of alice"))
    await other.barrier()
    assert not [e for e in other.seen if is_(e, "message")], "it is unavailable"
    other.disconnect()


async def presence(port, a, b):
    await check("subscriptions are passed on", subscription(a, b))
    await check("presence, to the account's own sessions", own_presence(port, a))


# ------------------------------------------------------------------- Rooms

async def first_join(a, b):
    got = await join(a, "ann")
    assert codes(got[0]) == ["110", "201"] and len(got) == 2, [ET.tostring(e) for e in got]
    assert got[0].get("from") == ROOM.lower() + "/ann", got[0].get("from")
    got = await join(b, "bob")
    assert got[-1].find(".//{*}item-not-found") is not None, [ET.tostring(e) for e in got]
    await refused(b, ROOM, "set", FORM, "forbidden")
    form = a.make_iq_set(ito=ROOM)
    form.append(ET.fromstring(FORM))
    await form.send()


async def second_join(a, b):
    got = await join(b, "bob")
    assert [e.get("from").split("/")[-1] for e in got[:2]] == ["ann", "bob"], [ET.tostring(e) for e in got]
    assert codes(got[0]) == [] and codes(got[1]) == ["110"], [ET.tostring(e) for e in got]
    await a.expect(lambda e: is_(e, "presence", ROOM.lower() + "/bob", ""))


async def reflected(a, b):
    a.send_raw("<message to='%s' type='groupchat' id='g1'><body>hello all</body></message>" % ROOM)
    for client in (a, b):
        e = await client.expect(lambda e: is_(e, "message", ROOM.lower() + "/ann", "groupchat", "hello all"))
        assert e.get("id") == "g1" and e.get("to") == client.boundjid.full, ET.tostring(e)


async def nick_conflict(c):
    got = await join(c, "ann")
    assert got[-1].get("type") == "error" and got[-1].find(".//{*}conflict") is not None, [ET.tostring(e) for e in got]


async def other_nick(b):
    got = await join(b, "bobby")
    assert got[-1].find(".//{*}not-acceptable") is not None, [ET.tostring(e) for e in got]


async def again(a, b):
    got = await join(b, "bob")
    assert [e.get("from").split("/")[-1] for e in got[:2]] == ["ann", "bob"], [ET.tostring(e) for e in got]
    assert codes(got[1]) == ["110"] and is_subject(got[-1]), [ET.tostring(e) for e in got]


async def leaving(a, b):
    b.send_raw("<presence to='%s/bob' type='unavailable'/>" % ROOM)
    e = await b.expect(lambda e: is_(e, "presence", ROOM.lower() + "/bob", "unavailable"))
    assert codes(e) == ["110"], ET.tostring(e)
    e = await a.expect(lambda e: is_(e, "presence", ROOM.lower() + "/bob", "unavailable"))
    assert e.find(".//" + USER + "item").get("role") == "none" and codes(e) == [], ET.tostring(e)


async def outside(b):
    await bounced(b, ROOM.lower(), "groupchat", "not-acceptable")
    await bounced(b, ROOM.lower() + "/ann", "chat", "not-acceptable")
    await bounced(b, "none@conference.localhost", "groupchat", "item-not-found")


async def no_nick(b):
    b.send_raw(join_text(ROOM, "").replace("/'", "'"))
    e = await b.expect(lambda e: is_(e, "presence", kind="error"))
    assert e.find(".//{*}jid-malformed") is not None, ET.tostring(e)


async def last_one_out(a, b):
    room = "short-%s@conference.localhost" % TAG
    for _ in range(2):
        got = await join(b, "b", room=room)
        assert codes(got[0]) == ["110", "201"], [ET.tostring(e) for e in got]
        b.send_raw("<presence to='%s/b' type='unavailable'/>" % room)
        await b.expect(lambda e: is_(e, "presence", room + "/b", "unavailable"))


async def cable_cut(a, c):
    await join(c, "carol")
    c.abort()
    await a.expect(lambda e: is_(e, "presence", ROOM.lower() + "/carol", "unavailable"))


async def rooms(a, b, c):
    await check("a new room: 110 and 201, and locked until its form is sent", first_join(a, b))
    await check("a second occupant: others first, itself last", second_join(a, b))
    await check("groupchat comes back to all, with its id", reflected(a, b))
    await check("a nick that is taken: conflict", nick_conflict(c))
    await check("another nick: not-acceptable", other_nick(b))
    await check("an occupant enters again", again(a, b))
    await check("leaving", leaving(a, b))
    await check("messages from outside: not-acceptable, item-not-found", outside(b))
    await check("joining without a nick: jid-malformed", no_nick(b))
    await check("the last one closes the room", last_one_out(a, b))
    await check("a client that vanishes leaves its rooms", cable_cut(a, c))


async def half_closed(port):
    """A client that has closed its half of the connection still gets the answer (nc -N)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEADER.encode())
    writer.write_eof()
    got = await reader.read(-1)
    assert b"</stream:features>" in got, got
    writer.close()


async def xml_prefix(a, b):
    a.send_raw("<message to='%s'><xml:x>1<y xmlns='u'/></xml:x><body>2</body></message>" % b.boundjid.full)
    e = await b.expect(lambda e: is_(e, "message", body="2"))
    assert e.find("{http://www.w3.org/XML/1998/namespace}x/{u}y") is not None, ET.tostring(e)


async def main(port):
    a = await check("alice logs in, PLAIN", Client(port, "alice", "a", "PLAIN").login())
    b = await check("bob logs in, SCRAM-SHA-1", Client(port, "bob", "b", "SCRAM-SHA-1").login())
    c = await check("carol logs in", Client(port, "carol", "c").login())
    if a and b and c:
        await logins(port)
        await messages(a, b)
        await check("an element in the namespace of xml is passed on", xml_prefix(a, b))
        await check("half of a connection is closed, and the answer still comes", half_closed(port))
        await presence(port, a, b)
        await rooms(a, b, c)
        a.disconnect()
        b.disconnect()
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: server_client.py PORT")
    logging.disable(logging.CRITICAL)
    sys.exit(asyncio.get_event_loop().run_until_complete(main(int(sys.argv[1]))))
