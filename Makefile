.POSIX:

CC = cc
CFLAGS = -O2 -Wall -Wextra -pedantic
PREFIX = /usr/local
LIB = xmpp.c xmlstream.c

all: echobot jumperbot

echobot: echobot.c $(LIB) xmpp.h
	$(CC) $(CFLAGS) -o $@ echobot.c $(LIB)

jumperbot: jumperbot.c $(LIB) xmpp.h
	$(CC) $(CFLAGS) -o $@ jumperbot.c $(LIB)

test:
	sh test/run_tests.sh

demo:
	sh test/practice/demo.sh

bench:
	sh test/bench/bench.sh

install: all
	mkdir -p $(DESTDIR)$(PREFIX)/bin
	cp echobot jumperbot $(DESTDIR)$(PREFIX)/bin

clean:
	rm -f echobot jumperbot

.PHONY: all test demo bench install clean
