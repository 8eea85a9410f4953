#!/usr/bin/python3
"""Meets jumperbots in their room, with slixmpp, an independent client.

usage: room_client.py PORT JUMPERBOT [--owner]

With --owner, the server lets the owner of a room kick people and destroy it.
Prints a line per check and exits with status 0 if all have passed.
"""
import asyncio
import logging
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../practice"))
from server_client import (PATIENCE, Client, USER, check, codes, is_, is_subject, join_text)
import server_client

ROOM = "bot_room_0@conference.localhost"
OWNER, ADMIN = "http://jabber.org/protocol/muc#owner", "http://jabber.org/protocol/muc#admin"


async def enter(client, nick):
    """Joins, and unlocks the room if it is new (XEP-0045 section 10.1.2)."""
    client.send_raw(join_text(ROOM, nick))
    me = await client.expect(lambda e: is_(e, "presence", "%s/%s" % (ROOM, nick), "") and "110" in codes(e))
    if "201" in codes(me):
        await ask(client, "<query xmlns='%s'><x xmlns='jabber:x:data' type='submit'/></query>" % OWNER)
    await client.expect(is_subject)


async def ask(client, payload):
    iq = client.make_iq_set(ito=ROOM)
    iq.append(server_client.ET.fromstring(payload))
    await iq.send(timeout=PATIENCE)


async def start(port, jumperbot, *options):
    return await asyncio.create_subprocess_exec(
        jumperbot, "-p", str(port), "-r", "1", "-i", "20", *options, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE)


async def end(bots):
    bots.terminate()
    await asyncio.wait_for(bots.communicate(), PATIENCE)
    assert bots.returncode == 0, bots.returncode


def present(nick):
    return lambda e: is_(e, "presence", "%s/%s" % (ROOM, nick), "")


async def conversation(port, jumperbot, alice):
    """Checks that alice hears exactly what the bots' trace says they have sent. Alice has the nick
    of one bot. The room refuses that bot, which reports the reason."""
    bots = await start(port, jumperbot, "-n", "3", "-d", "6", "-v")
    out, trace = (text.decode() for text in await bots.communicate())
    await alice.barrier()
    say = r"^C\(jumperbot_\d\): <message to='%s' type='groupchat' id='([^']*)'><body>([^<]*)<" % ROOM
    said = sorted(re.findall(say, trace, re.M))
    heard = sorted((e.get("id"), e.findtext("{jabber:client}body")) for e in alice.seen
                   if is_(e, "message", kind="groupchat") and e.find("{jabber:client}body") is not None)
    unescaped = [(i, re.sub("&(lt|gt|amp|quot|apos);", lambda m: {
        "lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}[m.group(1)], body)) for i, body in said]
    assert len(said) > 5 and heard == unescaped, (said, heard)
    assert bots.returncode == 1 and "\nsent=%d\nheard=%d\n" % (len(said), len(said)) in out, out
    assert "\nentered=2\n" in out and re.search(r"\nno_entry=[1-9]", out), out
    assert re.search("^jumperbot_1: %s: conflict" % ROOM, trace, re.M), trace


async def kicked(alice):
    await alice.expect(present("jumperbot_0"))
    await ask(alice, "<query xmlns='%s'><item nick='jumperbot_0' role='none'/></query>" % ADMIN)
    await alice.expect(lambda e: is_(e, "presence", ROOM + "/jumperbot_0", "unavailable") and "307" in codes(e))
    await alice.expect(present("jumperbot_0"))


async def destroyed(alice):
    """Destroys the room. An occupant who enters while ejabberd closes it gets no answer, so
    alice tries again, and the bot does after 30 s."""
    await ask(alice, "<query xmlns='%s'><destroy/></query>" % OWNER)
    alice.seen.clear()
    for attempt in range(5):
        try:
            await asyncio.wait_for(enter(alice, "alice"), 10)
            break
        except asyncio.TimeoutError:
            pass
    await alice.expect(lambda e: is_(e, "message", ROOM + "/jumperbot_0", "groupchat"))


async def main(port, jumperbot, owner):
    alice = await check("alice logs in", Client(port, "alice", "a").login())
    if alice:
        await check("she enters the bots' room", enter(alice, "jumperbot_1"))
        server_client.PATIENCE = 30
        await check("alice hears all that two bots send, and one bot finds its nick taken", conversation(port, jumperbot, alice))
        alice.seen.clear()
        bots = await start(port, jumperbot, "-n", "1")
        await check("a bot comes", alice.until(lambda: any(present("jumperbot_0")(e) for e in alice.seen)))
        await check("and speaks", alice.until(lambda: any(
            e.tag.endswith("message") and e.get("from", "").endswith("/jumperbot_0") for e in alice.seen)))
        if owner:
            await check("a bot that is kicked enters again", kicked(alice))
            server_client.PATIENCE = 80
            await check("when the room is destroyed, the bot opens another", destroyed(alice))
        await check("SIGTERM ends it", end(bots))
        alice.disconnect()
    print("%d passed, %d failed" % (server_client.passed, server_client.failed))
    return 1 if server_client.failed else 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or not sys.argv[1].isdigit():
        sys.exit("usage: room_client.py PORT JUMPERBOT [--owner]")
    logging.disable(logging.CRITICAL)
    sys.exit(asyncio.get_event_loop().run_until_complete(
        main(int(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["--owner"])))
