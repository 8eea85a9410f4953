/* test_xmlstream.c - tests that xmlstream.c keeps the promises of xmpp.h.
 *
 * Most of it is one table: the bytes that go in, and the events that must come out,
 * written on one line, which is called the trace:
 *
 *     OPEN a STANZA {u}b[c='d' {v}e='f']'text'(g h) CLOSE
 *     OPEN a ERROR not-well-formed@7
 *
 * An element is {namespace}name[attributes]'text'(children); empty parts are left
 * out. (`xml:` stands for the namespace of that prefix, which is long.) The number
 * after an error is the byte of the stream that the error names.
 *
 * Each input is fed in one piece, in pieces of 1, 2, 3 and 7 bytes, and cut in two at
 * every position. The trace must always be the same, and xmlstream_raw() must return
 * the bytes of each event. Accepted elements are then printed with xml_print() and
 * parsed again, which must give the same trees.
 *
 * The program prints only failures, and a last line with the counts. */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <stdlib.h>
#include <string.h>

#define XML_NS "http://www.w3.org/XML/1998/namespace"
#define XMLNS_NS "http://www.w3.org/2000/xmlns/"
#define STREAMS_NS "http://etherx.jabber.org/streams"

static int passed, failed;

/* --------------------------------------------------------------- The table */

struct input {
	const char *bytes;      /* there may be NULs among them */
	size_t n;
	const char *trace;
	size_t max_stanza;      /* for xmlstream_new() */
};

#define CASE(bytes, trace) {bytes, sizeof bytes - 1, trace, 0}
#define CASE_OF_10(bytes, trace) {bytes, sizeof bytes - 1, trace, 10}

static const struct input accepted[] = {
	/* Elements. The root is the stream, and each of its children is a stanza. */
	CASE("", ""),
	CASE("<a", ""),
	CASE("<a>", "OPEN a"),
	CASE("<a></a>", "OPEN a CLOSE"),
	CASE("<a/>", "OPEN a CLOSE"),
	CASE("<a /> \r\n\t", "OPEN a CLOSE"),
	CASE("\n<a>", "OPEN a"),
	CASE("<a><b/></a>", "OPEN a STANZA b CLOSE"),
	CASE("<a><b></b></a>", "OPEN a STANZA b CLOSE"),
	CASE("<a\t\r\n><b\n/><c ></c\r\n></a\t>", "OPEN a STANZA b STANZA c CLOSE"),
	CASE("<a><b/><c/><b/><d", "OPEN a STANZA b STANZA c STANZA b"),
	CASE("<a> \t\r\n<b/>\n\n<c/> </a>\n", "OPEN a STANZA b STANZA c CLOSE"),
	CASE("<a><b><c><d/></c><e/><f/></b>", "OPEN a STANZA b(c(d) e f)"),
	CASE("<a><a><a></a></a></a>", "OPEN a STANZA a(a) CLOSE"),
	CASE("<_A><b-.9_z/><Z/>", "OPEN _A STANZA b-.9_z STANZA Z"),

	/* Text. Everything that is directly inside an element is joined. */
	CASE("<a><b>x</b>", "OPEN a STANZA b'x'"),
	CASE("<a><b>x<c>y</c>z<d/>!</b>", "OPEN a STANZA b'xz!'(c'y' d)"),
	CASE("<a><b><c>1<d>2</d>3</c>4</b>", "OPEN a STANZA b'4'(c'13'(d'2'))"),
	CASE("<a><b> \t\n x  </b>", "OPEN a STANZA b' \t\n x  '"),
	CASE("<a><b>>/='\"]] ]> ]</b>", "OPEN a STANZA b'>/='\"]] ]> ]'"),
	CASE("<a><b>]]</b><b>]</b>", "OPEN a STANZA b']]' STANZA b']'"),
	CASE("<a><b>\x7F</b>", "OPEN a STANZA b'\x7F'"),
	CASE("<a><b>x</b", "OPEN a"),

	/* Attributes. */
	CASE("<a><b c='d' e=\"f\"/>", "OPEN a STANZA b[c='d' e='f']"),
	CASE("<a z='1' y='2' x='3'>", "OPEN a[z='1' y='2' x='3']"),
	CASE("<a><b c='\"' d=\"'\"/>", "OPEN a STANZA b[c='\"' d=''']"),
	CASE("<a><b c\n= \t'd'\r\ne =\"\" />", "OPEN a STANZA b[c='d' e='']"),
	CASE("<a><b c='>' d=\"/>\"/>", "OPEN a STANZA b[c='>' d='/>']"),
	CASE("<a><b c='/'></b><b c='/'/>", "OPEN a STANZA b[c='/'] STANZA b[c='/']"),
	CASE("<a><b c=']]>'/>", "OPEN a STANZA b[c=']]>']"),
	CASE("<a><b c=' d  e '/>", "OPEN a STANZA b[c=' d  e ']"),
	CASE("<a><b i='' h='' g='' f='' e='' d='' c='' b='' a='' j=''/>",
	     "OPEN a STANZA b[i='' h='' g='' f='' e='' d='' c='' b='' a='' j='']"),
	CASE("<a><b c='>", "OPEN a"),

	/* References. They always stand for text, never for markup. */
	CASE("<a><b>&lt;&gt;&amp;&quot;&apos;</b>", "OPEN a STANZA b'<>&\"''"),
	CASE("<a><b c='&lt;&gt;&amp;&quot;&apos;'/>", "OPEN a STANZA b[c='<>&\"'']"),
	CASE("<a><b>&amp;lt;&#38;lt;&lt;c/></b>", "OPEN a STANZA b'&lt;&lt;<c/>'"),
	CASE("<a><b c='&#38;lt;&#60;'/>", "OPEN a STANZA b[c='&lt;<']"),
	CASE("<a><b>x&#65;y&#x41;z</b>", "OPEN a STANZA b'xAyAz'"),
	CASE("<a><b c='x&#65;y&#x41;z'/>", "OPEN a STANZA b[c='xAyAz']"),
	CASE("<a><b>&#00000000000065;&#x00000000000041;</b>", "OPEN a STANZA b'AA'"),
	CASE("<a><b>&#xe9;&#xE9;&#233;</b>", "OPEN a STANZA b'\xC3\xA9\xC3\xA9\xC3\xA9'"),
	CASE("<a><b>&#x7F;&#x80;&#x7FF;&#x800;</b>", "OPEN a STANZA b'\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80'"),
	CASE("<a><b>&#xD7FF;&#xE000;&#xFFFD;</b>", "OPEN a STANZA b'\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBD'"),
	CASE("<a><b>&#x10000;&#x10FFFF;</b>", "OPEN a STANZA b'\xF0\x90\x80\x80\xF4\x8F\xBF\xBF'"),
	CASE("<a><b c='&#1114111;'/>", "OPEN a STANZA b[c='\xF4\x8F\xBF\xBF']"),
	CASE("<a><b>&am", "OPEN a"),

	/* CDATA sections. Nothing in them is markup, except the first ]]>, which is the end. */
	CASE("<a><b><![CDATA[x]]></b>", "OPEN a STANZA b'x'"),
	CASE("<a><b><![CDATA[]]></b>", "OPEN a STANZA b"),
	CASE("<a><b><![CDATA[<c>&amp;&</b>]]></b>", "OPEN a STANZA b'<c>&amp;&</b>'"),
	CASE("<a><b><![CDATA[]]]></b>", "OPEN a STANZA b']'"),
	CASE("<a><b><![CDATA[]]]]></b>", "OPEN a STANZA b']]'"),
	CASE("<a><b><![CDATA[x]y]]z]>]]></b>", "OPEN a STANZA b'x]y]]z]>'"),
	CASE("<a><b><![CDATA[<![CDATA[]]></b>", "OPEN a STANZA b'<![CDATA['"),
	CASE("<a><b>]]<![CDATA[>]]>]]</b>", "OPEN a STANZA b']]>]]'"),
	CASE("<a><b>x<![CDATA[y]]><![CDATA[z]]>!<c/><![CDATA[?]]></b>", "OPEN a STANZA b'xyz!?'(c)"),
	CASE("<a><b><![CDATA[x]]", "OPEN a"),

	/* The XML declaration. */
	CASE("<?xml version='1.0'?><a>", "OPEN a"),
	CASE("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<a>", "OPEN a"),
	CASE("<?xml version='1.0' encoding='utf-8' standalone='no'?><a>", "OPEN a"),
	CASE("<?xml version='1.0' standalone='yes'?><a>", "OPEN a"),
	CASE("<?xml\tversion = '1.0'\r\nencoding= 'UTF-8' \n?> \r\n<a>", "OPEN a"),
	CASE("<?xml version='1.1'?><a>", "OPEN a"),
	CASE("<?xml version='1.0'?><a x='y'><b>z</b></a>", "OPEN a[x='y'] STANZA b'z' CLOSE"),
	CASE("<?xml version='1.0'", ""),

	/* A line break becomes \n, and in an attribute a space, unless it is written as a
	 * reference (XML 1.0, sections 2.11 and 3.3.3). */
	CASE("<a><b>1\n2\r3\r\n4\r\r\n5\n\r</b>", "OPEN a STANZA b'1\n2\n3\n4\n\n5\n\n'"),
	CASE("<a><b><![CDATA[\r\n1\r2\r\r\n]]></b>", "OPEN a STANZA b'\n1\n2\n\n'"),
	CASE("<a><b>\r<c/>\r&#10;\r<![CDATA[\n]]></b>", "OPEN a STANZA b'\n\n\n\n\n'(c)"),
	CASE("<a><b c='1\n2\r3\r\n4\r\r\n5\t6\r'/>", "OPEN a STANZA b[c='1 2 3 4  5 6 ']"),
	CASE("<a><b>&lt;&amp;lt;]]&gt;&#13;<c/>&#10;</b>", "OPEN a STANZA b'<&lt;]]>\r\n'(c)"),
	CASE("<a><b>&#13;&#10;&#9;</b>", "OPEN a STANZA b'\r\n\t'"),
	CASE("<a><b c='&#13;&#10;&#9;'/>", "OPEN a STANZA b[c='\r\n\t']"),

	/* Namespaces. */
	CASE("<a xmlns='u'><b c='d'/>", "OPEN {u}a STANZA {u}b[c='d']"),
	CASE("<x:a xmlns:x='u'><b/><x:b/></x:a>", "OPEN {u}a STANZA b STANZA {u}b CLOSE"),
	CASE("<a xmlns='u'><b xmlns='v'><c/></b><d/>", "OPEN {u}a STANZA {v}b({v}c) STANZA {u}d"),
	CASE("<a xmlns='u'><b xmlns=''><c/></b><b/>", "OPEN {u}a STANZA b(c) STANZA {u}b"),
	CASE("<a><b><x:c xmlns:x='u'><x:d xmlns:x='v'/><x:e/></x:c><c/></b>", "OPEN a STANZA b({u}c({v}d {u}e) c)"),
	CASE("<a xmlns:xy='u' xmlns:x='v'><x:b/><xy:c/>", "OPEN a STANZA {v}b STANZA {u}c"),
	CASE("<x:a y:b='' xmlns:x='u' xmlns:y='v'>", "OPEN {u}a[{v}b='']"),
	CASE("<a><b xmlns:x='u' x:from='1' from='2'/>", "OPEN a STANZA b[{u}from='1' from='2']"),
	CASE("<a xmlns='u' xmlns:x='u' b='1' x:b='2'>", "OPEN {u}a[b='1' {u}b='2']"),
	CASE("<a xmlns:x='u' xmlns:y='v' x:b='1' y:b='2'>", "OPEN a[{u}b='1' {v}b='2']"),
	CASE("<a xmlns='&#117;&amp;v'>", "OPEN {u&v}a"),
	CASE("<a xmlnsx='u' xml='v'>", "OPEN a[xmlnsx='u' xml='v']"),
	CASE("<a xml:lang='en'><b xml:lang='de'/>", "OPEN a[xml:lang='en'] STANZA b[xml:lang='de']"),
	CASE("<a xmlns='u'><xml:b><c/></xml:b>", "OPEN {u}a STANZA xml:b({u}c)"),
	CASE("<a xmlns='u'><b><xml:c><d/><e xmlns=''/></xml:c><f/></b>", "OPEN {u}a STANZA {u}b(xml:c({u}d e) {u}f)"),
	CASE("<a xmlns:xml='" XML_NS "' xml:lang='en'>", "OPEN a[xml:lang='en']"),
	CASE("<stream:stream xmlns='jabber:client' xmlns:stream='" STREAMS_NS "' version='1.0'>"
	     "<stream:features/><message/></stream:stream>",
	     "OPEN {" STREAMS_NS "}stream[version='1.0'] STANZA {" STREAMS_NS "}features"
	     " STANZA {jabber:client}message CLOSE"),
	CASE("<stream xmlns='" STREAMS_NS "'><features/>", "OPEN {" STREAMS_NS "}stream STANZA {" STREAMS_NS "}features"),
	/* A stream header inside the stream is an ordinary element. It never starts a new stream. */
	CASE("<s:s xmlns:s='u'><m><s:s to='x'/></m><s:s/></s:s>", "OPEN {u}s STANZA m({u}s[to='x']) STANZA {u}s CLOSE"),

	/* UTF-8: the first and the last character of each length, the edges of what is excluded, and
	 * U+FEFF, which is a byte order mark only at the start. */
	CASE("<a><b>\xC2\x80\xDF\xBF\xE0\xA0\x80</b>", "OPEN a STANZA b'\xC2\x80\xDF\xBF\xE0\xA0\x80'"),
	CASE("<a><b>\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBD</b>", "OPEN a STANZA b'\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBD'"),
	CASE("<a><b>\xF0\x90\x80\x80\xF4\x8F\xBF\xBF</b>", "OPEN a STANZA b'\xF0\x90\x80\x80\xF4\x8F\xBF\xBF'"),
	CASE("<a><b>\xEF\xBB\xBF</b>", "OPEN a STANZA b'\xEF\xBB\xBF'"),
	CASE("<a><b c='\xC3\xA9\xE2\x82\xAC'><![CDATA[\xF0\x9D\x84\x9E]]></b>",
	     "OPEN a STANZA b[c='\xC3\xA9\xE2\x82\xAC']'\xF0\x9D\x84\x9E'"),
	CASE("<\xC3\xA9><\xE6\xBC\xA2 \xC3\xBC='1'/></\xC3\xA9>", "OPEN \xC3\xA9 STANZA \xE6\xBC\xA2[\xC3\xBC='1'] CLOSE"),
	CASE("<\xC3\xA9:\xC3\xBC xmlns:\xC3\xA9='u'>", "OPEN {u}\xC3\xBC"),
	CASE("<a><b\xC2\xB7\xCC\x80\xE2\x80\xBF/><\xF0\x90\x80\x80/>",
	     "OPEN a STANZA b\xC2\xB7\xCC\x80\xE2\x80\xBF STANZA \xF0\x90\x80\x80"),
	CASE("<a><b>\xF0\x9D\x84", "OPEN a")
};

static const struct input refused[] = {
	/* Parts of XML that RFC 6120 section 11.1 forbids. */
	CASE("<a><!-- x --><b/>", "OPEN a ERROR restricted-xml@3"),
	CASE("<a><b>x<!-", "OPEN a ERROR restricted-xml@9"),
	CASE("<!-- x --><a>", "ERROR restricted-xml@0"),
	CASE("<a><?php x?><b/>", "OPEN a ERROR restricted-xml@3"),
	CASE("<a><b><?php x?></b>", "OPEN a ERROR restricted-xml@6"),
	CASE("<?php x?><a>", "ERROR restricted-xml@2"),
	CASE("<?don't?><a>", "ERROR restricted-xml@2"),
	CASE("<?xfml version'='1.0'?><a>", "ERROR restricted-xml@3"),
	CASE("<?xml-stylesheet href='x'?><a>", "ERROR restricted-xml@5"),
	CASE("<!DOCTYPE a><a>", "ERROR restricted-xml@0"),
	CASE("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;", "ERROR restricted-xml@21"),
	CASE("<a><!DOCTYPE a>", "OPEN a ERROR restricted-xml@3"),
	CASE("<a><b>&nbsp;</b>", "OPEN a ERROR restricted-xml@6"),
	CASE("<a><b c='&nbsp;'/>", "OPEN a ERROR restricted-xml@9"),
	CASE("<a><b>&\xC3\xA9;</b>", "OPEN a ERROR restricted-xml@6"),
	CASE("<a><b c='&\xC3\xA9;'/>", "OPEN a ERROR restricted-xml@9"),
	CASE("<?xml version='1.&#48;'?><a>", "ERROR not-well-formed@0"),
	CASE("<a><b>&LT;</b>", "OPEN a ERROR restricted-xml@6"),
	CASE("<a><b>&am;</b>", "OPEN a ERROR restricted-xml@6"),
	CASE("<a><b>&ampx;</b>", "OPEN a ERROR restricted-xml@6"),
	CASE("<a><!ELEMENT b>", "OPEN a ERROR restricted-xml@3"),
	CASE("<a><b><![cdata[x]]></b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b><![CDATA x]]></b>", "OPEN a ERROR not-well-formed@6"),

	/* Outside stanzas only white space is allowed. */
	CASE("x", "ERROR not-well-formed@0"),
	CASE(" &#32;<a>", "ERROR not-well-formed@1"),
	CASE("\xEF\xBB\xBF<a>", "ERROR not-well-formed@0"), /* RFC 6120 section 11.6: no byte order mark */
	CASE("<![CDATA[x]]><a>", "ERROR restricted-xml@0"),
	CASE("</a>", "ERROR not-well-formed@1"),
	CASE("<a>x", "OPEN a ERROR bad-format@3"),
	CASE("<a><b/>x<c/>", "OPEN a STANZA b ERROR bad-format@7"),
	CASE("<a>&#32;<b/>", "OPEN a ERROR bad-format@3"),
	CASE("<a><![CDATA[ ]]><b/>", "OPEN a ERROR restricted-xml@3"),
	CASE("<a>]]>", "OPEN a ERROR bad-format@3"),
	CASE("<a></a>x", "OPEN a CLOSE ERROR not-well-formed@7"),
	CASE("<a/> <b/>", "OPEN a CLOSE ERROR not-well-formed@5"),
	CASE("<a></a></a>", "OPEN a CLOSE ERROR not-well-formed@7"),
	CASE("<a></a><!-- x -->", "OPEN a CLOSE ERROR not-well-formed@7"),
	CASE("<a></a><?xml version='1.0'?><a>", "OPEN a CLOSE ERROR not-well-formed@7"),

	/* The XML declaration. It must be at byte 0. */
	CASE(" <?xml version='1.0'?><a>", "ERROR restricted-xml@1"),
	CASE("<?xml version='1.0'?><?xml version='1.0'?><a>", "ERROR restricted-xml@21"),
	CASE("<a><?xml version='1.0'?><b/>", "OPEN a ERROR restricted-xml@3"),
	CASE("<a><b><?xml version='1.0'?><a>", "OPEN a ERROR restricted-xml@6"),
	CASE("<?xml version='1.0' encoding='ISO-8859-1'?><a>", "ERROR unsupported-encoding@0"),
	CASE("<?xml version='1.0' encoding='UTF-16'?><a>", "ERROR unsupported-encoding@0"),
	CASE("<?xml version='1.0' encoding='UTF-88'?><a>", "ERROR unsupported-encoding@0"),
	CASE("<?xml ?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml?><a>", "ERROR restricted-xml@5"),
	CASE("<?XML version='1.0'?><a>", "ERROR restricted-xml@2"),
	CASE("<?xml version='1.0'><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.0'encoding='UTF-8'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml encoding='UTF-8'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml encoding='UTF-8' version='1.0'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.0' standalone='yes' encoding='UTF-8'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.0' version='1.0'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.0' standalone='maybe'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.0' xmlns='u'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.0' x='y'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.0x'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='2.0'?><a>", "ERROR not-well-formed@0"),
	CASE("<?xml version='1.0' ? ><a>", "ERROR not-well-formed@0"),

	/* Tags. */
	CASE("<a><b></a>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b></bc>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><bc></b>", "OPEN a ERROR not-well-formed@7"),
	CASE("<a><b></B>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b></ b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b></b c='d'>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b></b/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b></>", "OPEN a ERROR not-well-formed@6"),
	CASE("<x:a xmlns:x='u' xmlns:y='u'></y:a>", "OPEN {u}a ERROR not-well-formed@29"),
	CASE("<a></b>", "OPEN a ERROR not-well-formed@3"),
	CASE("<a><></a>", "OPEN a ERROR not-well-formed@5"),
	CASE("<a>< b/>", "OPEN a ERROR not-well-formed@4"),
	CASE("<a><1/>", "OPEN a ERROR not-well-formed@4"),
	CASE("<a><-b/>", "OPEN a ERROR not-well-formed@4"),
	CASE("<a><.b/>", "OPEN a ERROR not-well-formed@4"),
	CASE("<a><\xC2\xB7/>", "OPEN a ERROR not-well-formed@4"),
	CASE("<a><b\xC3\x97/>", "OPEN a ERROR not-well-formed@5"),
	CASE("<a><b$/>", "OPEN a ERROR not-well-formed@5"),
	CASE("<a><b/ ></b>", "OPEN a ERROR not-well-formed@5"),
	CASE("<a><b/c></b>", "OPEN a ERROR not-well-formed@5"),
	CASE("<a><b//>", "OPEN a ERROR not-well-formed@5"),
	CASE("<a><b<", "OPEN a ERROR not-well-formed@5"),

	/* Attributes. */
	CASE("<a><b c='d'e='f'/>", "OPEN a ERROR not-well-formed@11"),
	CASE("<a><b'c'/>", "OPEN a ERROR not-well-formed@5"),
	CASE("<a><b c/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c 'd'/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c=/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c=d/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c==d/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b ='d'/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b 1='d'/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c='<'/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b c='<'></b>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b c='1' c='2'/>", "OPEN a ERROR not-well-formed@12"),
	CASE("<a><b a='' b='' c='' d='' e='' f='' g='' a=''/>", "OPEN a ERROR not-well-formed@41"),
	CASE("<a><b a='' b='' c='' d='' e='' f='' g='' h='' a=''/>", "OPEN a ERROR not-well-formed@46"),
	CASE("<a><b a='' b='' c='' d='' e='' f='' g='' h='' i='' d=''/>", "OPEN a ERROR not-well-formed@51"),

	/* Text and references. */
	CASE("<a><b>]]></b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>x]]]></b>", "OPEN a ERROR not-well-formed@8"),
	CASE("<a><b><![CDATA[x]]>]]></b>", "OPEN a ERROR not-well-formed@19"),
	CASE("<a><b>& </b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c='& '/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b>&;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c='&;'/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b>&amp</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c='&amp'/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b>&amp&amp;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&1;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#x;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c='&#x;'/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b>&#A;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#xG;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#X41;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#x0x41;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c='&#+65;'/>", "OPEN a ERROR not-well-formed@9"), /* strtoul() would accept these three */
	CASE("<a><b c='&#-4294967231;'/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b c='&# 65;'/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b>&#+65;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#0;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c='&#0;'/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b>&#8;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#x1F;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#xD800;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#xDFFF;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#xFFFE;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#xFFFF;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#x110000;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#x4010000;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#4294967361;</b>", "OPEN a ERROR not-well-formed@6"), /* 65 and 2 to the 32nd, to the 64th */
	CASE("<a><b>&#x10000000000000041;</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>&#99999999999999999999999;</b>", "OPEN a ERROR not-well-formed@6"),

	/* Bytes that are not characters, anywhere. */
	CASE("\0", "ERROR not-well-formed@0"),
	CASE("<a>\0", "OPEN a ERROR not-well-formed@3"),
	CASE("<a\0>", "ERROR not-well-formed@2"),
	CASE("<a><b>\0</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b c='\0'/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b><![CDATA[\0]]></b>", "OPEN a ERROR not-well-formed@15"),
	CASE("<a><b>\x01</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\x1F</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\x08</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>1\x0C""2345678901234567890</b>", "OPEN a ERROR not-well-formed@7"),
	CASE("<a><b>12345678901\x0B""234567890</b>", "OPEN a ERROR not-well-formed@17"),
	CASE("<a><b>\x80</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xBF</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>x\xC3\xA9\xA9</b>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b>\xC0\x80</b>", "OPEN a ERROR not-well-formed@6"), /* overlong forms */
	CASE("<a><b>\xC0\xBC/b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xC1\xBF</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xE0\x9F\xBF</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xF0\x8F\xBF\xBF</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xED\xA0\x80</b>", "OPEN a ERROR not-well-formed@6"), /* surrogates */
	CASE("<a><b>\xED\xBF\xBF</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xEF\xBF\xBE</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xEF\xBF\xBF</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xF4\x90\x80\x80</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xF5\x80\x80\x80</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xFE</b>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xFF</b>", "OPEN a ERROR not-well-formed@6"),
	/* A character that is cut short must not swallow what follows (CVE-2022-25235). */
	CASE("<a><b>\xC3</b><c/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xE2\x82</b><c/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b>\xF0\x9D\x84</b><c/>", "OPEN a ERROR not-well-formed@6"),
	CASE("<a><b\xC3><c/>", "OPEN a ERROR not-well-formed@5"),
	CASE("<a><b c='\xE2\x82'/><c/>", "OPEN a ERROR not-well-formed@9"),
	CASE("<a><b/><b\xF0\x9D\x84/>", "OPEN a STANZA b ERROR not-well-formed@9"),

	/* Namespaces. */
	CASE("<x:a>", "ERROR bad-namespace-prefix@1"),
	CASE("<a><b xmlns='u' xmlns='u'/>", "OPEN a ERROR not-well-formed@16"),
	CASE("<a><b xmlns:x='u' xmlns:x='v'/>", "OPEN a ERROR not-well-formed@18"),
	CASE("<a:b:c xmlns:a='u'/>", "ERROR not-well-formed@1"),
	CASE("<:a/>", "ERROR not-well-formed@1"),
	CASE("<a:/>", "ERROR not-well-formed@1"),
	CASE("<a::b xmlns:a='u'/>", "ERROR not-well-formed@1"),
	CASE("<a:1 xmlns:a='u'/>", "ERROR not-well-formed@1"),
	CASE("<a:\xC2\xB7 xmlns:a='u'/>", "ERROR not-well-formed@1"),
	CASE("<a xmlns:x='u' x:1='b'/>", "ERROR not-well-formed@15"),
	CASE("<a xmlns:x='u' x:y:z='b'/>", "ERROR not-well-formed@15"),
	CASE("<a :b='c'/>", "ERROR not-well-formed@3"),
	CASE("<a xmlns:='c'/>", "ERROR not-well-formed@3"),
	CASE("<a xmlns:b:c='c'/>", "ERROR not-well-formed@3")
};

/* These are well-formed, but break Namespaces in XML. In a stream header that is an error; see also
 * the end of the table above. */
static const struct input misused[] = {
	CASE("<a><b xmlns:x='u' xmlns:y='u' x:c='1' y:c='2'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:x='u' xmlns:y='u' x:a='' b='' c='' d='' e='' f='' g='' h='' i='' y:a=''/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><x:b/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b x:c='d'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a xmlns:xy='u'><x:b/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a xmlns:x='u'><xy:b/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:x='u'/><x:c/><o/>", "OPEN a STANZA b SKIPPED STANZA o"),
	CASE("<a><b><c xmlns:x='u'/><x:d/></b><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:x=''/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:xml='u'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:xmlns='u'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:xmlns='" XMLNS_NS "'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:x='" XMLNS_NS "'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:x='" XML_NS "'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns='" XMLNS_NS "'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns='" XML_NS "'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><xmlns:b/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b><x:c/><d></d></b><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b><![CDATA[</b>]]><x:c/></b><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:x='u' xmlns:y='&#117;' x:c='1' y:c='2'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a xmlns:x='u'><b xmlns:y='u' x:c='1' y:c='2'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b:c:d xmlns:b='u'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><:b/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b:/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b::c/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b:1 xmlns:b='u'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b:\xC2\xB7 xmlns:b='u'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:x='u' x:1='c'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b :c='d'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b c:='d'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:='u'/><o/>", "OPEN a SKIPPED STANZA o"),
	CASE("<a><b xmlns:c:d='u'/><o/>", "OPEN a SKIPPED STANZA o"),
	/* Input that is not well-formed is still an error, before or after such a mistake. */
	CASE("<a><x:b>&c;</x:b>", "OPEN a ERROR restricted-xml@8"),
	CASE("<a><b>&c;<x:d/></b>", "OPEN a ERROR restricted-xml@6"),
	CASE("<a><x:b c='' c=''/>", "OPEN a ERROR not-well-formed@13"),
	CASE("<a><x:b></b>", "OPEN a ERROR not-well-formed@8"),
	CASE("<a><x:b><!--", "OPEN a ERROR restricted-xml@10"),
	CASE("<a><x:b>\x01", "OPEN a ERROR not-well-formed@8"),
	CASE("<a xmlns:x='u' xmlns:y='u' x:c='1' y:c='2'>", "ERROR not-well-formed@37"),
	CASE("<a xmlns:x=''>", "ERROR bad-namespace-prefix@3"),
	CASE("<a xmlns:xmlns='u'>", "ERROR bad-namespace-prefix@3"),
	CASE("<a x:b='c'>", "ERROR bad-namespace-prefix@3")
};

/* Here a stanza of more than 10 bytes, counted from its <, is skipped, whatever makes it long. Only
 * the tags of the rest are checked. */
static const struct input limited[] = {
	CASE_OF_10("<a><b>345</b><b>345</b>", "OPEN a STANZA b'345' STANZA b'345'"),
	CASE_OF_10("<a><b>3456</b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b>3456", "OPEN a"),
	CASE_OF_10("<a><b/><b>3456</b><b/></a>", "OPEN a STANZA b SKIPPED STANZA b CLOSE"),
	CASE_OF_10("<a>            <b>345</b>            </a>", "OPEN a STANZA b'345' CLOSE"),
	CASE_OF_10("<a></a>                              ", "OPEN a CLOSE"),
	CASE_OF_10("<a><b>        </b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b>                                    </b><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><c/><c/><c/><c/>", "OPEN a STANZA c STANZA c STANZA c STANZA c"),
	CASE_OF_10("<a><b><c/><c/></b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b><c><d><e></e><f/></d></c></b><g/>", "OPEN a SKIPPED STANZA g"),
	CASE_OF_10("<a><bcdefgh/>", "OPEN a STANZA bcdefgh"),
	CASE_OF_10("<a><bcdefghij", "OPEN a"),
	CASE_OF_10("<a><bcdefghijk/><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><b c='78'/><b c='7890'/>", "OPEN a SKIPPED SKIPPED"),
	CASE_OF_10("<a><b c='7'><d e='5'/></b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b>56<d e='>'/></b><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><b>56<d e='78901'/></b><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><b>345&amp;</b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b>345&amp;&bad;</b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b>3456789\x01", "OPEN a ERROR not-well-formed@13"),
	CASE_OF_10("<a><b>34567]]</b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b>34567]]></b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b>345678\r\n</b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b>345678\xC3\xA9</b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b><![CDATA[]]></b>", "OPEN a SKIPPED"),
	CASE_OF_10("<a><b><![CDATA[</b></b></b>]]></b><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><b>x<!--", "OPEN a ERROR restricted-xml@9"),
	CASE_OF_10("<a><b>3456789<!--", "OPEN a ERROR restricted-xml@15"),
	CASE_OF_10("<a><b c='7890123456789>/<'></b><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><b c=\"7890123456789'\"/><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><bcdefghijklmnop><q/></bcdefghijklmnop><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><b>&#00000000000065;</b><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><b><![CDATA[x]y]]z>]]]></b><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a><b><![CDATA[<!--]]><!--", "OPEN a ERROR restricted-xml@24"),
	CASE_OF_10("<a><b>34567890<c<", "OPEN a ERROR not-well-formed@16"),
	CASE_OF_10("<a><b>34567890<?", "OPEN a ERROR restricted-xml@14"),
	CASE_OF_10("<a><b><x:c/></b><c/>", "OPEN a SKIPPED STANZA c"),
	CASE_OF_10("<a>\n</bcdefghijk>", "OPEN a ERROR policy-violation@14"),
	CASE_OF_10("<a c='678'>", "ERROR policy-violation@10"),
	CASE_OF_10("<a c='67'>", "OPEN a[c='67']"),
	CASE_OF_10("<abcdefghijk", "ERROR policy-violation@10")
};

/* ------------------------------------------------------------------ Traces */

static void dump_name(const char *ns, const char *name, FILE *out)
{
	if (!strcmp(ns, XML_NS))
		fputs("xml:", out);
	else if (*ns)
		fprintf(out, "{%s}", ns);
	fputs(name, out);
}

/* Recursion is safe here, since no tree is deeper than 128 levels. */
static void dump(const struct xml_elem *e, FILE *out)
{
	const char *separator = "[";
	const struct xml_attr *a;
	const struct xml_elem *c;

	dump_name(e->ns, e->name, out);
	for (a = e->attrs; a; a = a->next, separator = " ") {
		fputs(separator, out);
		dump_name(a->ns, a->name, out);
		fprintf(out, "='%s'%s", a->value, a->next ? "" : "]");
	}
	if (*e->text)
		fprintf(out, "'%s'", e->text);
	for (c = e->children, separator = "("; c; c = c->next, separator = " ") {
		fputs(separator, out);
		fputs(c->parent == e ? "" : "wrong parent of ", out);
		dump(c, out);
		fputs(c->next ? "" : ")", out);
	}
}

/* A parser, and the input that it is fed. */
struct feeder {
	struct xmlstream *xs;
	const struct input *in;
	size_t fed;             /* bytes of the input that have been fed */
	size_t seen;            /* bytes that belong to past events, or are white space */
	int lost;               /* the bytes of a stanza were not kept, so `seen` is not known */
};

/* True if the bytes of the event are the next ones of the input. */
static int has_raw(struct feeder *f, enum xml_event event)
{
	size_t n;
	const char *raw = xmlstream_raw(f->xs, &n), *next;

	while (f->seen < f->fed && strchr(" \t\r\n", f->in->bytes[f->seen]) && f->in->bytes[f->seen])
		f->seen++;
	next = f->in->bytes + f->seen;
	f->seen += n;
	f->lost |= event == XML_SKIPPED && n == 0;
	if (event == XML_ERROR || f->lost)
		return f->lost || (f->seen <= f->fed && !memcmp(raw, next, n));
	return f->seen <= f->fed && !memcmp(raw, next, n) && (n == 0 || (raw[0] == '<' && raw[n - 1] == '>'));
}

/* Adds one event to a trace. If anything is not as xmpp.h promises, adds a remark as well, which
 * makes the trace differ from the one wanted. */
static void trace_event(struct feeder *f, enum xml_event event, const struct xml_elem *e, FILE *out)
{
	static const char *const names[] = {"MORE", "OPEN", "STANZA", "SKIPPED", "CLOSE", "ERROR"};
	const char *error = xmlstream_error(f->xs), *condition = xmlstream_condition(f->xs), *at;

	fprintf(out, "%s%s", ftell(out) > 0 ? " " : "", names[event]);
	if ((event == XML_OPEN || event == XML_STANZA) != !!e)
		fputs(" with the wrong *out", out);
	if ((event == XML_ERROR) != !!error || !error != !condition)
		fputs(" with an error or a condition where none is, or the opposite", out);
	if (e && (e->parent || e->next || (event == XML_OPEN && (e->children || *e->text))))
		fputs(" with more than it should have", out);
	if (!has_raw(f, event))
		fputs(" with the wrong raw bytes", out);
	if (e)
		fputc(' ', out);
	if (e)
		dump(e, out);
	if (event == XML_ERROR && error) {
		at = strstr(error, " at byte ");
		fprintf(out, " %s@%s", condition, at ? at + strlen(" at byte ") : "?");
	}
}

/* Adds all events of the bytes so far. An error must be permanent. */
static enum xml_event trace_events(struct feeder *f, FILE *out)
{
	struct xml_elem *e;
	enum xml_event event;
	size_t n;

	while ((event = xmlstream_next(f->xs, &e)) != XML_MORE && event != XML_ERROR) {
		trace_event(f, event, e, out);
		xml_free(e);
	}
	if (event == XML_MORE && (xmlstream_raw(f->xs, &n), n > 0))
		fputs(" with raw bytes where there are none", out);
	if (event == XML_ERROR) {
		trace_event(f, event, e, out);
		if (xmlstream_feed(f->xs, "<a>", 3) || xmlstream_next(f->xs, &e) != XML_ERROR || e)
			fputs(" that is not permanent", out);
	}
	return event;
}

/* Feeds a copy that is freed at once, so that sanitizers and valgrind notice if the parser reads
 * beyond it, or reads it later. */
static void feed(struct xmlstream *xs, const char *bytes, size_t n)
{
	char *copy = malloc(n ? n : 1);

	if (!copy || xmlstream_feed(xs, memcpy(copy, bytes, n), n))
		abort();
	free(copy);
}

static void feed_text(struct xmlstream *xs, const char *text)
{
	feed(xs, text, strlen(text));
}

/* Feeds a piece of `first` bytes, and then pieces of `step` bytes. Returns the trace. If the pieces
 * are single bytes, an event must come with the byte that completes it. */
static char *trace_of(const struct input *in, size_t first, size_t step)
{
	struct feeder f = {xmlstream_new(in->max_stanza), in, 0, 0, 0};
	enum xml_event event = XML_MORE;
	size_t size, n = first;
	char *trace;
	FILE *out = open_memstream(&trace, &size);
	long before;

	if (!f.xs || !out)
		abort();
	for (; event == XML_MORE && f.fed < in->n; n = step) {
		n = n < in->n - f.fed ? n : in->n - f.fed;
		feed(f.xs, in->bytes + f.fed, n);
		f.fed += n;
		before = ftell(out);
		event = trace_events(&f, out);
		if (n == 1 && event == XML_MORE && ftell(out) > before && f.seen != f.fed && !f.lost)
			fputs(" late", out);
	}
	xmlstream_free(f.xs);
	fclose(out);
	return trace;
}

/* ------------------------------------------------------------------ Checks */

/* Prints at most 160 bytes of s, from `skip` on, on one line. */
static void show(const char *label, const char *s, size_t n, size_t skip)
{
	size_t i, end = n < skip + 160 ? n : skip + 160;

	printf("%s%s", label, skip ? "..." : "");
	for (i = skip; i < end; i++)
		printf(s[i] >= ' ' && s[i] <= '~' ? "%c" : "\\x%02X", (unsigned char)s[i]);
	printf("%s", end < n ? "..." : "");
}

/* Compares traces without counting. If they differ, prints them without a long common part. */
static int is_same(const struct input *in, const char *split, const char *got)
{
	size_t skip = 0;

	if (!strcmp(got, in->trace))
		return 1;
	while (got[skip] && got[skip] == in->trace[skip])
		skip++;
	skip = skip > 100 ? skip - 20 : 0;
	show("", in->bytes, in->n, 0);
	printf(", %s", split);
	show(", got ", got, strlen(got), skip);
	show(", wanted ", in->trace, strlen(in->trace), skip);
	printf("\n");
	return 0;
}

static void count(int ok)
{
	passed += ok;
	failed += !ok;
}

static void check(const char *name, int ok)
{
	if (!ok)
		printf("%s, -, got 0, wanted 1\n", name);
	count(ok);
}

static int is_same_split(const struct input *in, size_t first, size_t step)
{
	char *got = trace_of(in, first, step), split[80];
	int ok;

	snprintf(split, sizeof split, "fed %lu bytes, then by %lu", (unsigned long)first, (unsigned long)step);
	ok = is_same(in, split, got);
	free(got);
	return ok;
}

/* Tests an input with all its cuts, until one is wrong. Counts as one test. For a long input, 100
 * cuts are enough. */
static void check_splits(const struct input *in)
{
	static const size_t steps[] = {1, 2, 3, 7};
	size_t i, stride = in->n > 500 ? in->n / 100 : 1;
	int ok = is_same_split(in, in->n, 1);

	for (i = 0; ok && i < sizeof steps / sizeof *steps; i++)
		ok = is_same_split(in, steps[i], steps[i]);
	for (i = 1; ok && i < in->n; i += stride)
		ok = is_same_split(in, i, in->n);
	count(ok);
}

/* Prints an element to `printed`, where it must take one line, and the expected trace to `trace`. */
static void print_elem(const struct xml_elem *e, FILE *printed, FILE *trace)
{
	char *line;
	size_t n;
	FILE *out = open_memstream(&line, &n);

	xml_print(e, out);
	fclose(out);
	if (n == 0 || strchr(line, '\n') != line + n - 1)
		fputs(" NOT ONE LINE", trace);
	fputs(line, printed);
	free(line);
	fputs(" STANZA ", trace);
	dump(e, trace);
}

/* Prints each element of `in` into a stream <r>, followed by each of its children. Writes the trace
 * to expect when that is parsed. */
static void print_again(const struct input *in, FILE *printed, FILE *trace)
{
	struct xmlstream *xs = xmlstream_new(in->max_stanza);
	struct xml_elem *e, *child;
	enum xml_event event;

	fputs("<r>", printed);
	fputs("OPEN r", trace);
	feed(xs, in->bytes, in->n);
	while ((event = xmlstream_next(xs, &e)) != XML_MORE && event != XML_ERROR) {
		if (!e)
			continue;
		print_elem(e, printed, trace);
		for (child = e->children; child; child = child->next)
			print_elem(child, printed, trace);
		xml_free(e);
	}
	fputs("</r>", printed);
	fputs(" CLOSE", trace);
	xmlstream_free(xs);
}

static void check_print(const struct input *in)
{
	struct input again = {NULL, 0, NULL, 0};
	char *bytes, *trace, *got;
	size_t size;
	FILE *printed = open_memstream(&bytes, &again.n), *out = open_memstream(&trace, &size);

	print_again(in, printed, out);
	fclose(printed);
	fclose(out);
	again.bytes = bytes;
	again.trace = trace;
	got = trace_of(&again, again.n, 1);
	count(is_same(&again, "printed", got));
	free(got);
	free(bytes);
	free(trace);
}

static void test_table(void)
{
	size_t i;

	for (i = 0; i < sizeof accepted / sizeof *accepted; i++) {
		check_splits(&accepted[i]);
		check_print(&accepted[i]);
	}
	for (i = 0; i < sizeof refused / sizeof *refused; i++)
		check_splits(&refused[i]);
	for (i = 0; i < sizeof misused / sizeof *misused; i++)
		check_splits(&misused[i]);
	for (i = 0; i < sizeof limited / sizeof *limited; i++)
		check_splits(&limited[i]);
}

/* ------------------------------------------------------------- Large input */

/* Returns `before`, n times `unit`, and `after`. In `unit`, %d becomes the number of the turn. */
static char *repeat(const char *before, const char *unit, int n, const char *after)
{
	size_t size;
	char *s;
	FILE *out = open_memstream(&s, &size);
	int i;

	fputs(before, out);
	for (i = 0; i < n; i++)
		fprintf(out, unit, i);
	fputs(after, out);
	fclose(out);
	return s;
}

/* Checks a long input, and frees both strings. */
static void check_large(char *bytes, char *trace, size_t max_stanza)
{
	struct input in = {bytes, strlen(bytes), trace, max_stanza};

	check_splits(&in);
	if (!strstr(trace, "ERROR"))
		check_print(&in);
	free(bytes);
	free(trace);
}

static char *nested(int levels)
{
	char *start = repeat("<a>", "<b>", levels, "x"), *all = repeat(start, "</b>", levels, "");

	free(start);
	return all;
}

static char *nested_trace(int levels)
{
	char *start = repeat("OPEN a STANZA b", "(b", levels - 1, "'x'"), *all = repeat(start, ")", levels - 1, "");

	free(start);
	return all;
}

static void test_depth(void)
{
	check_large(nested(128), nested_trace(128), 0);
	check_large(nested(129), repeat("OPEN a SKIPPED", "", 0, ""), 0);
	check_large(repeat("<a>", "<b>", 128, "<c/>"), repeat("OPEN a", "", 0, ""), 0);
	check_large(repeat("<a>", "<b>", 1000, "<c d='>'/><![CDATA[</b>]]>"), repeat("OPEN a", "", 0, ""), 0);
}

/* A stanza deeper than the limit still ends at its own end tag. */
static void test_end_of_depth(void)
{
	char *start = repeat("<a>", "<b c='/>'>", 1000, "<![CDATA[</b>]]><d/>"), *all = repeat(start, "</b>", 1000, "<o/>");

	free(start);
	check_large(all, repeat("OPEN a SKIPPED STANZA o", "", 0, ""), 0);
}

/* xmlns declarations count as well. */
static void test_attributes(void)
{
	check_large(repeat("<a><b", " a%03d=''", 100, "/>"),
	            repeat("OPEN a STANZA b[", "a%03d='' ", 99, "a099='']"), 0);
	check_large(repeat("<a><b", " a%04d=''", 101, ">1</b><b a='2'>3</b>"),
	            repeat("OPEN a SKIPPED STANZA b[a='2']'3'", "", 0, ""), 0);
	check_large(repeat("<a><b xmlns='u'", " a%03d=''", 100, "/><o/>"),
	            repeat("OPEN a SKIPPED STANZA o", "", 0, ""), 0);
	check_large(repeat("<a><b", " a%03d=''", 99, " a050=''/>"),
	            repeat("OPEN a ERROR not-well-formed@798", "", 0, ""), 0);
	check_large(repeat("<a", " a%03d=''", 101, ">"), repeat("ERROR policy-violation@803", "", 0, ""), 0);
	check_large(repeat("<a xmlns:x='u'><b", " x:a%d=''", 10000, "/><o/>"), repeat("OPEN a SKIPPED STANZA o", "", 0, ""), 0);
	check_large(repeat("<a>", "<b c='d' e='f'/>", 200, ""), repeat("OPEN a", " STANZA b[c='d' e='f']", 200, ""), 0);
}

/* Every name is looked up among the declarations in scope. With more of them, a stanza of nothing
 * but short names would take a second. */
static void test_bindings(void)
{
	check_large(repeat("<a xmlns='u'><b", " xmlns:p%03d='v'", 99, "><c"),
	            repeat("OPEN {u}a", "", 0, ""), 0);
	check_large(repeat("<a xmlns='u'><b>", "<c xmlns:p%d='v'>", 127, "<d/>"), repeat("OPEN {u}a", "", 0, ""), 0);
	check_large(repeat("<a xmlns='u'><b", " xmlns:p%03d='v'", 99, "><c/></b>"),
	            repeat("OPEN {u}a STANZA {u}b({u}c)", "", 0, ""), 0);
	check_large(repeat("<a xmlns='u'><b", " xmlns:p%03d='v'", 99, "><c p0='' p1='' xmlns:p2='' xmlns:p3='v'/></b><b/>"),
	            repeat("OPEN {u}a SKIPPED STANZA {u}b", "", 0, ""), 0);
	check_large(repeat("<a><b>", "<c xmlns:p='v'/>", 200, "</b>"), repeat("OPEN a STANZA b(c", " c", 199, ")"), 0);
}

/* One declaration at each level: 127 are allowed, besides that of the header. */
static void test_nested_bindings(void)
{
	char *start = repeat("<a xmlns='u'>", "<b xmlns='v'>", 127, ""), *all = repeat(start, "</b>", 127, "<o/>");
	char *trace = repeat("OPEN {u}a STANZA {v}b", "({v}b", 126, ""), *whole = repeat(trace, ")", 126, " STANZA {u}o");

	free(start);
	free(trace);
	check_large(all, whole, 0);
	start = repeat("<a xmlns='u'>", "<b xmlns='v'>", 128, "");
	all = repeat(start, "</b>", 128, "<o/>");
	free(start);
	check_large(all, repeat("OPEN {u}a SKIPPED STANZA {u}o", "", 0, ""), 0);
}

/* The limit is 256 KiB if the caller sets none. */
static void test_default_limit(void)
{
	int n = 256 * 1024 - (int)strlen("<b></b>");

	check_large(repeat("<a><b>", "x", n, "</b><b/>"), repeat("OPEN a STANZA b'", "x", n, "' STANZA b"), 0);
	check_large(repeat("<a><b>", "x", n + 1, "</b><b/>"), repeat("OPEN a SKIPPED STANZA b", "", 0, ""), 0);
}

static void test_highest_limit(void)
{
	struct xmlstream *xs = xmlstream_new(64 << 20);

	check("64 MiB is the highest limit", xs && !xmlstream_new((64 << 20) + 1));
	xmlstream_free(xs);
}

static void test_megabyte(void)
{
	int n = 1024 * 1024;
	char *bytes = repeat("<a><b>", "x", n, "</b>"), *trace = repeat("OPEN a STANZA b'", "x", n, "'");
	struct input in = {NULL, 0, NULL, 2 * 1024 * 1024};

	in.bytes = bytes;
	in.n = strlen(bytes);
	in.trace = trace;
	count(is_same_split(&in, 1, 1));
	free(bytes);
	free(trace);
}

/* A long stanza is skipped, whatever it consists of. The ordinary one after it is not. */
static void test_endless(void)
{
	static const char *const parts[][3] = {
		{"<b>", "0123456789", "</b>"}, {"<b c='", "0123456789", "'/>"}, {"<b c=\"", "<'/>'>'>'>", "\"/>"},
		{"<b>&#", "0000000000", "65;</b>"}, {"<b><![CDATA[", "]]]</b>]>]]", "]]></b>"}, {"<b ", "          ", "/>"},
		{"<b", "0123456789", "/>"}, {"<b", " c='d'    ", "/>"}, {"<b>", "<c></c><d/>", "</b>"}, {"<b>", "<c d='e'/>", "</b>"}
	};
	struct input in = {NULL, 0, "OPEN a SKIPPED STANZA o", 0};
	char *start, *stanza, *all;
	size_t i;

	for (i = 0; i < sizeof parts / sizeof *parts; i++) {
		start = repeat("<a>", parts[i][0], 1, "");
		stanza = repeat(start, parts[i][1], 30000, parts[i][2]);
		all = repeat(stanza, "<o/>", 1, "");
		in.bytes = all;
		in.n = strlen(all);
		count(is_same_split(&in, in.n, 1) && is_same_split(&in, 1, 1) && is_same_split(&in, 4096, 4096));
		free(start);
		free(stanza);
		free(all);
	}
}

/* Each construct that is skipped is put into each kind of stanza. An ordinary message follows. */
static void test_stanzas(void)
{
	static const char *const kinds[] = {"message", "presence", "iq"};
	static const char *const attributes[] = {
		"x:a='b'", "xmlns:x=''", "xmlns:xml='u'", "xmlns:xmlns='u'", "xmlns='" XMLNS_NS "'", "xmlns:x='" XML_NS "'",
		"xmlns:x='u' xmlns:y='u' x:a='' y:a=''", "a:b:c='d'", ":a='b'", "a:='b'", "xmlns:='u'"
	};
	static const char *const children[] = {
		"<xml:e/>", "<e xmlns='" XML_NS "'/>", "<x:e/>", "<e x:a='b'/>", "<e:/>", "<:e/>", "<e:f:g/>"
	};
	char bytes[400], trace[100];
	struct input in = {bytes, 0, trace, 0};
	size_t i, k;

	for (k = 0; k < 3; k++) {
		for (i = 0; i < sizeof attributes / sizeof *attributes; i++) {
			in.n = (size_t)snprintf(bytes, sizeof bytes, "<a><%s %s>text</%s><message to='b'/>", kinds[k], attributes[i], kinds[k]);
			snprintf(trace, sizeof trace, "OPEN a SKIPPED STANZA message[to='b']");
			check_splits(&in);
		}
		for (i = 0; i < sizeof children / sizeof *children; i++) {
			in.n = (size_t)snprintf(bytes, sizeof bytes, "<a><%s><c>%s</c></%s><message to='b'/>", kinds[k], children[i], kinds[k]);
			snprintf(trace, sizeof trace, i ? "OPEN a SKIPPED STANZA message[to='b']"
			         : "OPEN a STANZA %s(c(xml:e)) STANZA message[to='b']", kinds[k]);
			check_splits(&in);
		}
	}
}

/* ---------------------------------------------------------- The other calls */

/* Returns the element of the next event, or NULL if that is not the wanted one. */
static struct xml_elem *next_elem(struct xmlstream *xs, enum xml_event wanted)
{
	struct xml_elem *e;

	return xmlstream_next(xs, &e) == wanted ? e : NULL;
}

/* Feeds the text. True if the next event is the wanted one. */
static int gives(struct xmlstream *xs, const char *text, enum xml_event wanted)
{
	struct xml_elem *e;
	enum xml_event event;

	feed_text(xs, text);
	event = xmlstream_next(xs, &e);
	xml_free(e);
	return event == wanted;
}

static void test_get(void)
{
	struct xmlstream *xs = xmlstream_new(0);
	struct xml_elem *a, *b;

	feed_text(xs, "<a x=''><b xmlns:x='u' x:from='1' from='2' xml:lang='en' to=''/>");
	a = next_elem(xs, XML_OPEN);
	b = next_elem(xs, XML_STANZA);
	check("xml_get takes the attribute without namespace", xml_get(b, "from") && !strcmp(xml_get(b, "from"), "2"));
	check("xml_get gives an empty value", xml_get(b, "to") && !*xml_get(b, "to"));
	check("xml_get knows no attributes with a prefix", !xml_get(b, "lang") && !xml_get(b, "xml:lang"));
	check("xml_get knows no declarations", !xml_get(b, "xmlns:x") && !xml_get(b, "x"));
	check("xml_get of a missing attribute", !xml_get(b, "fro") && !xml_get(a, "from"));
	check("xml_get of NULL", !xml_get(NULL, "from"));
	xml_free(b);
	xml_free(a);
	xmlstream_free(xs);
}

static void test_child(void)
{
	static const char text[] = "<a><b><c xmlns='u'>1</c><c>2</c><c xmlns='u'>3</c><d><e/></d></b>";
	struct xmlstream *xs = xmlstream_new(0);
	struct xml_elem *a, *b, *c;

	feed_text(xs, text);
	a = next_elem(xs, XML_OPEN);
	b = next_elem(xs, XML_STANZA);
	c = xml_child(b, "c", "u");
	check("xml_child finds the first", c && !strcmp(c->text, "1"));
	check("xml_child finds the namespace", xml_child(b, "c", "") && !strcmp(xml_child(b, "c", "")->text, "2"));
	check("xml_child in any namespace", c && xml_child(b, "c", NULL) == c);
	check("xml_child in no such namespace", !xml_child(b, "c", "v"));
	check("xml_child in depth", xml_child(xml_child(b, "d", NULL), "e", "") && !xml_child(b, "e", NULL));
	check("xml_child of NULL", !xml_child(xml_child(b, "x", NULL), "e", NULL));
	check("xml_child of the header", a && !xml_child(a, "b", NULL));
	xml_free(a);
	xml_free(b);
	xmlstream_free(xs);
}

/* Each tree owns its memory, so trees may be freed in any order, and after the parser. */
static void test_lifetimes(void)
{
	struct xmlstream *xs = xmlstream_new(0);
	struct xml_elem *a, *b, *c;

	feed_text(xs, "<a xmlns='u'><b d='e'>f</b><c><d xmlns='v'/></c><g>");
	a = next_elem(xs, XML_OPEN);
	b = next_elem(xs, XML_STANZA);
	xml_free(a);
	check("a stanza outlives the header", b && !strcmp(b->ns, "u"));
	c = next_elem(xs, XML_STANZA);
	xml_free(b);
	check("a stanza outlives the one before", c && !strcmp(c->name, "c") && !strcmp(c->ns, "u"));
	xmlstream_reset(xs);
	check("a stanza outlives the reset", c && !strcmp(c->name, "c") && !strcmp(c->children->ns, "v"));
	feed_text(xs, "<h xmlns='v' i='j'/>");
	a = next_elem(xs, XML_OPEN);
	xmlstream_free(xs);
	check("a stanza outlives the parser", c && !strcmp(c->name, "c") && !strcmp(c->children->ns, "v"));
	check("a header outlives the parser", a && !strcmp(a->ns, "v") && xml_get(a, "i"));
	xml_free(a);
	xml_free(c);
	xml_free(NULL);
	xmlstream_free(NULL);
}

/* A reset leaves nothing of the old stream, wherever the old stream stopped. */
static void test_reset(void)
{
	static const char *const old[] = {
		"", "<a", "<a><b/>", "<a><b>x", "<a><b c='", "<a><b><![CDATA[x", "<a><b>&am", "<a><b>\xC3",
		"<a xmlns='u' xmlns:x='u'><b>", "<a/>", "<a></a>", "<a><b></a>", "x", "<a><b>\x01", "<?xml version='1.0'?>"
	};
	struct input in = CASE("<?xml version='1.0'?><a><b>&amp;</b></a>", "OPEN a STANZA b'&' CLOSE");
	struct xmlstream *xs = xmlstream_new(0);
	struct feeder f;
	char *trace;
	size_t i, size;
	FILE *out;

	for (i = 0; i < sizeof old / sizeof *old; i++) {
		feed_text(xs, old[i]);
		while (i % 2 && gives(xs, "", XML_STANZA)) /* half of the time there are events left */
			;
		xmlstream_reset(xs);
		check("a reset forgets the error", !xmlstream_error(xs) && !xmlstream_condition(xs));
		check("a reset leaves no bytes", gives(xs, "", XML_MORE));
		out = open_memstream(&trace, &size);
		feed(xs, in.bytes, in.n);
		f = (struct feeder){xs, &in, in.n, 0, 0};
		trace_events(&f, out);
		fclose(out);
		count(is_same(&in, old[i], trace));
		free(trace);
		xmlstream_reset(xs);
	}
	check("a reset forgets prefixes", gives(xs, "<x:a>", XML_ERROR));
	xmlstream_free(xs);
}

static void test_reset_keeps_limit(void)
{
	struct xmlstream *xs = xmlstream_new(10);

	xmlstream_reset(xs);
	check("a reset keeps max_stanza", gives(xs, "<abcdefghij>", XML_ERROR));
	xmlstream_free(xs);
}

/* True if these are the raw bytes of the last event. */
static int raw_is(const struct xmlstream *xs, const char *bytes)
{
	size_t n;
	const char *raw = xmlstream_raw(xs, &n);

	return n == strlen(bytes) && !memcmp(raw, bytes, n);
}

/* Each event comes with the byte that completes it. */
static void test_prompt(void)
{
	struct xmlstream *xs = xmlstream_new(0);

	check("no header yet", gives(xs, "<?xml version='1.0'?>\n<a", XML_MORE) && raw_is(xs, ""));
	check("the header", gives(xs, ">", XML_OPEN) && raw_is(xs, "<?xml version='1.0'?>\n<a>"));
	check("nothing more", gives(xs, "", XML_MORE) && raw_is(xs, ""));
	check("no stanza yet", gives(xs, "<b>x</b", XML_MORE));
	check("a stanza", gives(xs, ">", XML_STANZA) && raw_is(xs, "<b>x</b>"));
	check("two stanzas", gives(xs, " <c>\n&amp;</c><d/>", XML_STANZA) && raw_is(xs, "<c>\n&amp;</c>"));
	check("the second of them", gives(xs, "", XML_STANZA) && raw_is(xs, "<d/>"));
	check("misused namespaces", gives(xs, "<x:e/>", XML_SKIPPED) && raw_is(xs, "<x:e/>"));
	check("white space", gives(xs, " \n", XML_MORE) && raw_is(xs, ""));
	check("no end yet", gives(xs, "</a", XML_MORE));
	check("the end", gives(xs, ">", XML_CLOSE) && raw_is(xs, "</a>"));
	xmlstream_reset(xs);
	check("no raw bytes after a reset", raw_is(xs, ""));
	check("an empty stream", gives(xs, "<a/>", XML_OPEN) && raw_is(xs, "<a/>"));
	check("and its end", gives(xs, "", XML_CLOSE) && raw_is(xs, ""));
	xmlstream_reset(xs);
	check("an error shows its stanza", gives(xs, "<a><b>&c;</b><d/>", XML_OPEN) && gives(xs, "", XML_ERROR)
	      && raw_is(xs, "<b>&c;</b>"));
	xmlstream_reset(xs);
	check("or what there is of it", gives(xs, "<a><b><!-- c", XML_OPEN) && gives(xs, "", XML_ERROR) && raw_is(xs, "<b><!-"));
	xmlstream_free(xs);
}

/* Calls xml_char() with n bytes at the end of a block of memory. */
static int char_of(const char *bytes, size_t n)
{
	char *copy = malloc(n);
	int len;

	if (!copy)
		abort();
	len = xml_char(memcpy(copy, bytes, n), n);
	free(copy);
	return len;
}

static void test_char(void)
{
	check("xml_char ASCII", char_of("a", 1) == 1 && char_of("ab", 2) == 1);
	check("xml_char control", char_of("\0", 1) == -1 && char_of("\x1F", 1) == -1 && char_of("\r", 1) == 1);
	check("xml_char 2 bytes", char_of("\xC3", 1) == 0 && char_of("\xC3\xA9", 2) == 2);
	check("xml_char 3 bytes", char_of("\xE2", 1) == 0 && char_of("\xE2\x82", 2) == 0 && char_of("\xE2\x82\xAC", 3) == 3);
	check("xml_char 4 bytes", char_of("\xF0", 1) == 0 && char_of("\xF0\x9D", 2) == 0
	      && char_of("\xF0\x9D\x84", 3) == 0 && char_of("\xF0\x9D\x84\x9E", 4) == 4);
	check("xml_char U+FFFE", char_of("\xEF\xBF", 2) == 0 && char_of("\xEF\xBF\xBE", 3) == -1);
	check("xml_char knows early", char_of("\xE0\x9F", 2) == -1 && char_of("\xED\xA0", 2) == -1
	      && char_of("\xF0\x8F", 2) == -1 && char_of("\xF4\x90", 2) == -1);
	check("xml_char no first byte", char_of("\x80", 1) == -1 && char_of("\xC1", 1) == -1 && char_of("\xF5", 1) == -1);
	check("xml_char cut short", char_of("\xC3>", 2) == -1 && char_of("\xE2\x82>", 3) == -1);
}

/* -------------------------------------------------------------------- XML out */

/* Checks the result of buffer_format() for this format and two strings. */
static void check_format(const char *format, const char *a, const char *b, const char *wanted)
{
	struct buffer out = {0};

	check(wanted, !buffer_format(&out, format, a, b) && out.end == strlen(wanted) && !strcmp(out.bytes, wanted));
	buffer_free(&out);
}

/* Whatever a bot passes in, the output is well-formed. Quotes are escaped only in values. */
static void test_format(void)
{
	struct buffer b = {0};

	check_format("<a>%s</a>", "b<c>&'\"]]>", NULL, "<a>b&lt;c&gt;&amp;'\"]]&gt;</a>");
	check_format("<a b='%s'/>", "c<d>&'\"", NULL, "<a b='c&lt;d&gt;&amp;&apos;&quot;'/>");
	check_format("<a b=\"%s/%s\"/>", "'", "\"", "<a b=\"&apos;/&quot;\"/>");
	check_format("<a b='%s'>%s</a>", "'", "'", "<a b='&apos;'>'</a>");
	check_format("<a b='>%s'><c>%s", "'", "'", "<a b='>&apos;'><c>'");
	check_format("%s", "'", NULL, "'");
	check_format("<a b='%s'>%s</a>", "1\n2\t3\r4", "1\n2\t3\r4", "<a b='1&#10;2&#9;3&#13;4'>1&#10;2&#9;3&#13;4</a>");
	check_format("%s", "h\xC3\xA9 \xF0\x9F\x98\x80", NULL, "h\xC3\xA9 \xF0\x9F\x98\x80");
	check_format("%s", "bell\a, cut \xE2\x82", NULL, "bell\xEF\xBF\xBD, cut \xEF\xBF\xBD\xEF\xBF\xBD");
	check_format("%s", "\xC0\x80<\xED\xA0>\x01&", NULL,
	             "\xEF\xBF\xBD\xEF\xBF\xBD&lt;\xEF\xBF\xBD\xEF\xBF\xBD&gt;\xEF\xBF\xBD&amp;");
	check_format("[%s%r]", NULL, NULL, "[]");
	check_format("%r%%%r", "<a>&", "'\"\n", "<a>&%'\"\n");
	check_format("100 % or 100%", NULL, NULL, "100 % or 100%");
	check("%d", !buffer_format(&b, "%d, %d", -1, 2000000000) && !strcmp(b.bytes, "-1, 2000000000"));
	buffer_free(&b);
}

int main(void)
{
	test_table();
	test_depth();
	test_end_of_depth();
	test_attributes();
	test_bindings();
	test_nested_bindings();
	test_default_limit();
	test_highest_limit();
	test_megabyte();
	test_endless();
	test_stanzas();
	test_get();
	test_child();
	test_lifetimes();
	test_reset();
	test_reset_keeps_limit();
	test_prompt();
	test_char();
	test_format();
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
