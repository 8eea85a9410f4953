#!/usr/bin/env python3
"""Talks to an echobot on a real server, with slixmpp, an independent XMPP library.

usage: echo_client.py [--user NAME] [--resource NAME] [--tls CAFILE]
                      [--count N | --leave] PORT JID

JID is the bot's full address. Without options, it checks all that echobot must
answer, and how, and all that it must not answer. With --count, N messages sent
at once must come back in order. With --leave, it sends one message and leaves
before an answer can come. With --resource, it asks for that resource. With
--tls, it logs in over TLS, to a server whose certificate is signed by the CA in
CAFILE. It stops at the first check that fails. The last line is "N passed, N
failed". The exit status is 1 if one failed.
"""
import argparse
import asyncio
import inspect
import logging
import sys

logging.disable(logging.CRITICAL)  # slixmpp reports errors as exceptions, too

import slixmpp
from slixmpp.exceptions import IqError
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

PATIENCE = 30  # seconds for one check; valgrind makes a bot slow

BODIES = {
    "a short text": "hello",
    "100 KB": "0123456789abcdef" * 6400,
    "markup": "<b>bold</b> & <![CDATA[x]]> <!-- ]]> --> </body></message>",
    "quotes": "\"double\" 'single' `back`",
    "text that looks like entities": "&lt; &amp;amp; &#65; &nbsp;",
    "emoji and many scripts": "\U0001f600\U0001f469\u200d\U0001f680 h\u00e9 \u4e16\u754c \u0448\u043b\u0430\u043a "
                              "\u05e9\u05dc\u05d5\u05dd \U00010348 \ufdd0 \U0010fffd",
    "newlines and tabs": "one\ntwo\n\n\tthree\t\n",
    "only spaces": "   ",
    "printf directives": "%s %d %n %r %%",
}

# A bot that looked only at the body, or not even at that, would echo these.
UNWANTED = {
    "an error": "<message to='%s' type='error'><body>no</body><error type='cancel'>"
                "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
    "groupchat": "<message to='%s' type='groupchat'><body>no</body></message>",
    "a headline": "<message to='%s' type='headline'><body>no</body></message>",
    "an empty body": "<message to='%s' type='chat'><body/></message>",
    "no body, a chat state": "<message to='%s' type='chat'>"
                             "<active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    "a body of another namespace": "<message to='%s' type='chat'><body xmlns='urn:example:other'>no</body></message>",
    "a delayed message": "<message to='%s' type='chat'><body>no</body>"
                         "<delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25Z'/></message>",
    "a body too long when it is escaped": "<message to='%s' type='chat'><body>" + "x\n" * 60000 + "</body></message>",
    "elements nested too deep": "<message to='%s' type='chat'><body>no</body>"
                                + "<a xmlns='urn:example:a'>" * 130 + "</a>" * 130 + "</message>",
}


class Client(slixmpp.ClientXMPP):
    """One account, logged in. All messages and presences wait in two queues."""

    def __init__(self, user, port, tls, resource=""):
        super().__init__(user + "@localhost" + ("/" + resource if resource else ""), user)
        self.port, self.tls = port, tls
        self.ca_certs = tls
        self.register_plugin("xep_0199")
        self["feature_mechanisms"].unencrypted_plain = True
        self["feature_mechanisms"].unencrypted_scram = True
        self.messages, self.presences = asyncio.Queue(), asyncio.Queue()
        # The events "message" and "presence" would leave some types out.
        self.queue("message", self.messages)
        self.queue("presence", self.presences)
        self.session = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", lambda _: self.settle(None))
        self.add_event_handler("failed_all_auth", lambda _: self.settle("login refused"))

    def queue(self, name, queue):
        self.register_handler(Callback(name, MatchXPath("{jabber:client}" + name), queue.put_nowait))

    def settle(self, problem):
        if not self.session.done():
            self.session.set_result(problem)

    async def log_in(self):
        if "address" in inspect.signature(self.connect).parameters:  # before slixmpp 1.9
            self.connect(("127.0.0.1", self.port), disable_starttls=self.tls is None)
        else:
            self.enable_direct_tls = False
            self.enable_starttls, self.enable_plaintext = bool(self.tls), not self.tls
            self.connect("127.0.0.1", self.port)
        problem = await asyncio.wait_for(self.session, PATIENCE)
        assert problem is None, problem
        await self.get_roster()  # or no answers to subscriptions come: RFC 6121 section 3.1.6
        self.send_presence()

    async def log_out(self):
        self.disconnect()
        await asyncio.wait_for(self.disconnected, PATIENCE)

    def say(self, to, body, type="chat", thread=None):
        message = self.make_message(mto=to, mbody=body, mtype=type)
        if thread:
            message["thread"] = thread
        message.send()

    async def hear(self, sender, body, type="chat", thread=None):
        """Checks that the next message is this one."""
        got = await self.messages.get()
        for what, have, want in (("body", got["body"], body), ("type", got["type"], type),
                                 ("thread", got["thread"], thread or ""), ("sender", got["from"].full, sender)):
            assert have == want, "%s: wanted %.60r, got %.60r" % (what, want, have)


async def is_echoed(client, bot, body, type="chat", thread=None):
    client.say(bot, body, type, thread)
    await client.hear(bot, body, type, thread)


async def is_not_answered(client, bot, stanza):
    """Sends a stanza, and then an ordinary message. The bot answers in order. So if the
    next message is the echo of the ordinary one, the stanza was not answered."""
    client.send_raw(stanza % bot)
    await is_echoed(client, bot, "marker")


async def own_account_is_not_answered(client, bot):
    """Sends a message from another device of the bot. An answer could start a loop.
    The result of the ping comes after everything else that the bot has sent."""
    device = Client("echobot", client.port, client.tls)
    await device.log_in()
    device.say(bot, "said by another device of the bot's account")
    await device["xep_0199"].send_ping(bot, timeout=PATIENCE)
    while not device.messages.empty():  # the server may have kept one for the account
        message = device.messages.get_nowait()
        assert message["from"] != bot, "it was answered: %s" % message
    await device.log_out()


async def subscription_is_granted(client, bot):
    account = slixmpp.JID(bot).bare
    client.send_presence(pto=account, ptype="subscribe")
    while True:
        presence = await client.presences.get()
        if presence["type"] == "subscribed" and presence["from"] == account:
            return


async def ping_is_answered(client, bot):
    await client["xep_0199"].send_ping(bot, timeout=PATIENCE)


async def unknown_iq_is_refused(client, bot, type):
    iq = client.make_iq(ito=bot, itype=type)
    iq.append(slixmpp.xmlstream.ET.Element("{urn:example:unknown}query"))
    try:
        await iq.send(timeout=PATIENCE)
    except IqError as error:
        condition = error.iq["error"]["condition"]
        assert condition == "service-unavailable", "refused with " + condition
    else:
        raise AssertionError("answered with a result")


async def come_back_in_order(client, bot, count):
    for i in range(count):
        client.say(bot, "message %d" % i)
    for i in range(count):
        await client.hear(bot, "message %d" % i)


def conversation(client, bot):
    """Yields all checks, as (name, coroutine)."""
    for what, body in BODIES.items():
        yield "echo of " + what, is_echoed(client, bot, body)
    yield "echo of type normal", is_echoed(client, bot, "hello", "normal")
    yield "echo in a thread", is_echoed(client, bot, "hello", "chat", "e0ffe42b <&> 28561")
    yield "echo in a thread, of type normal", is_echoed(client, bot, "hello", "normal", "t2")
    for what, stanza in UNWANTED.items():
        yield "no echo of " + what, is_not_answered(client, bot, stanza)
    yield "no echo for its own account", own_account_is_not_answered(client, bot)
    yield "subscription granted", subscription_is_granted(client, bot)
    yield "ping answered", ping_is_answered(client, bot)
    for type in "get", "set":
        yield "unknown iq %s refused" % type, unknown_iq_is_refused(client, bot, type)


async def passes(name, coroutine):
    try:
        await asyncio.wait_for(coroutine, PATIENCE)
    except Exception as error:
        print("FAIL - %s: %s" % (name, str(error) or type(error).__name__), flush=True)
        return False
    print("ok - " + name, flush=True)
    return True


async def main(args):
    client = Client(args.user, args.port, args.tls, args.resource)
    if not await passes("%s logs in" % args.user, client.log_in()):
        print("0 passed, 1 failed")
        return 1
    if args.leave:
        client.say(args.bot, "said by one who left")
        checks = []
    elif args.count:
        checks = [("%d messages" % args.count, come_back_in_order(client, args.bot, args.count))]
    else:
        checks = conversation(client, args.bot)
    passed = 1
    for name, check in checks:
        if not await passes(name, check):  # the following checks would be out of step
            print("%d passed, 1 failed" % passed)
            return 1
        passed += 1
    await client.log_out()
    print("%d passed, 0 failed" % passed)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1][len("usage: "):])
    parser.add_argument("port", type=int)
    parser.add_argument("bot")
    parser.add_argument("--user", default="alice")
    parser.add_argument("--resource", default="")
    parser.add_argument("--tls", metavar="CAFILE")
    parser.add_argument("--count", type=int)
    parser.add_argument("--leave", action="store_true")
    sys.exit(asyncio.run(main(parser.parse_args())))
