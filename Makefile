.POSIX:

CFLAGS = -O2 -Wall -Wextra -pedantic
LIB = xmpp.c xmlstream.c

all: echobot

echobot: echobot.c $(LIB) xmpp.h
	$(CC) $(CFLAGS) -o $@ echobot.c $(LIB)

test:
	sh test/run_tests.sh

demo:
	sh test/demo.sh

clean:
	rm -f echobot

.PHONY: all test demo clean
