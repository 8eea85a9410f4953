#!/usr/bin/env python3
"""Sends an echobot stanzas that a server may forward although they break
Namespaces in XML, or that grow on their way. After each of them the bot must
echo an ordinary message, at the same full JID: it must not have reconnected.

usage: hostile_client.py [--user NAME] [--room ROOM] PORT JID|COMMAND

With --room it enters a room with such a presence, which the room sends to everybody
who enters later. Then it runs the command, and returns its exit status.

This client is a socket and some text, since no library would send such things.
It logs in with PLAIN. If the server refuses a stanza, it logs in again. The last
line is "N passed, N failed"; the exit status is 1 if one failed.
"""
import argparse
import base64
import socket
import subprocess
import sys

PATIENCE = 30  # seconds

XML_NS = "http://www.w3.org/XML/1998/namespace"

# The content of the stanza, and its attributes.
HOSTILE = {
    "an element with the prefix xml": ("<xml:e/>", ""),
    "an undeclared prefix": ("<u:e/>", ""),
    "an undeclared prefix of an attribute": ("<e u:a='b'/>", ""),
    "an undeclared prefix in the stanza's tag": ("", "u:a='b'"),
    "a prefix that only the sender's stream header declares": ("<mine:e/>", ""),
    "such a prefix of an attribute": ("<e mine:a='b'/>", ""),
    "the namespace of xml as the default": ("<e xmlns='" + XML_NS + "'/>", ""),
    "the namespace of xml with another prefix": ("<e xmlns:x='" + XML_NS + "'/>", ""),
    "the prefix xml with another namespace": ("<e xmlns:xml='urn:x'/>", ""),
    "the prefix xmlns": ("<e xmlns:xmlns='urn:x'/>", ""),
    "a prefix without a namespace": ("<e xmlns:x=''/>", ""),
    "two attributes that are the same": ("<e xmlns:x='urn:x' xmlns:y='urn:x' x:a='' y:a=''/>", ""),
    "two colons": ("<e:f:g xmlns:e='urn:x'/>", ""),
    "a colon at the end": ("<e:/>", ""),
    "200 attributes": ("<e %s/>" % " ".join("a%d=''" % i for i in range(200)), ""),
    "200 levels of elements": ("<e>" * 200 + "</e>" * 200, ""),
    "200 namespace declarations": ("".join("<e xmlns='u%d'>" % i for i in range(200)) + "</e>" * 200, ""),
    "60,000 apostrophes in a value": ("<e a=\"" + "'" * 60000 + "\"/>", ""),
    "60,000 apostrophes in a text": ("<e>" + "'" * 60000 + "</e>", ""),
    "50,000 children": ("<e/>" * 50000, ""),
}


class Closed(Exception):
    """The server has closed the connection."""


class Client:
    def __init__(self, port, user):
        self.heard = ""
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        plain = base64.b64encode(("\0%s\0%s" % (user, user)).encode()).decode()
        self.open()
        self.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>" % plain, "<success")
        self.open()
        self.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")
        self.say("<presence/>", "<presence")

    def open(self):
        self.say("<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:mine='urn:mine' "
                 "xmlns:stream='http://etherx.jabber.org/streams'>", "</stream:features>")

    def say(self, text, awaited):
        """Sends some text, and waits for the awaited one. Discards all input up to its end."""
        try:
            self.socket.sendall(text.encode())
            while awaited not in self.heard:
                got = self.socket.recv(65536).decode(errors="replace")
                self.heard += got
                if not got or "<stream:error" in self.heard:
                    raise Closed
        except (BrokenPipeError, ConnectionResetError):
            raise Closed
        self.heard = self.heard.partition(awaited)[2]


def enter_room_and_run(args):
    client = Client(args.port, args.user)
    client.say("<presence to='%s/%s'><xml:e/><mine:e/><e %s/><x xmlns='http://jabber.org/protocol/muc'/></presence>"
               % (args.room, args.user, " ".join("a%d=''" % i for i in range(200))), "<subject")
    client.say("<iq type='set' id='o' to='%s'><query xmlns='http://jabber.org/protocol/muc#owner'>"
               "<x xmlns='jabber:x:data' type='submit'/></query></iq>" % args.room, "id='o'")
    return subprocess.call(args.bot, shell=True)


def talk_to_bot(args):
    client, marker, passed, forwarded = Client(args.port, args.user), 0, 0, 0
    for kind in "message", "presence", "iq":
        for what, (content, attributes) in HOSTILE.items():
            marker += 1
            attributes += {"message": " type='chat'", "presence": "", "iq": " type='get' id='h%d'" % marker}[kind]
            stanza = "<%s to='%s' %s>%s%s</%s>" % (kind, args.bot, attributes,
                                                   "<body>no</body>" if kind == "message" else "", content, kind)
            # A server's expat may put off parsing a long tag until twice as many bytes have come.
            stanza += " " * len(stanza)
            question = "<message to='%s' type='chat'><body>marker %d</body></message>" % (args.bot, marker)
            echo = "<body>marker %d</body>" % marker
            try:
                client.say(stanza + question, echo)
                forwarded += 1
                print("ok - %s with %s" % (kind, what), flush=True)
            except Closed:
                client = Client(args.port, args.user)
                client.say(question, echo)
                print("ok - %s with %s: the server refuses it" % (kind, what), flush=True)
            except socket.timeout:
                print("FAIL - %s with %s" % (kind, what), flush=True)
                print("%d passed, 1 failed" % passed)
                return 1
            passed += 1
    print("the server refused %d of them" % (passed - forwarded))
    print("%d passed, %d failed" % (passed, forwarded == 0))
    return forwarded == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1][len("usage: "):])
    parser.add_argument("port", type=int)
    parser.add_argument("bot")
    parser.add_argument("--user", default="alice")
    parser.add_argument("--room")
    arguments = parser.parse_args()
    sys.exit(enter_room_and_run(arguments) if arguments.room else talk_to_bot(arguments))
