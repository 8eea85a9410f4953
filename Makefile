.POSIX:

CC = cc
CFLAGS = -O2 -Wall -Wextra -pedantic
LIB = xmpp.c xmlstream.c

all: echobot jumperbot

echobot: echobot.c $(LIB) xmpp.h
	$(CC) $(CFLAGS) -o $@ echobot.c $(LIB)

jumperbot: jumperbot.c $(LIB) xmpp.h
	$(CC) $(CFLAGS) -o $@ jumperbot.c $(LIB)

test:
	sh test/run_tests.sh

demo:
	sh test/demo.sh

clean:
	rm -f echobot jumperbot

.PHONY: all test demo clean
