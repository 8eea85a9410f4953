/* poke.c - opens a stream to the server on this machine, and prints what the server sends. Then it
 * also sends what you type, so that you can continue by hand. Press Ctrl-C to end it. */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static const char header[] = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client'"
                             " xmlns:stream='http://etherx.jabber.org/streams'>";

int main(void)
{
	struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(5222)};
	int in, fd = socket(AF_INET, SOCK_STREAM, 0);
	struct pollfd ready[] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	char bytes[4096];
	ssize_t n = -1;

	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (!connect(fd, (struct sockaddr *)&server, sizeof server))
		n = write(fd, header, sizeof header - 1);
	while (n > 0 && poll(ready, 2, -1) > 0) {
		in = ready[0].revents ? fd : 0; /* from the server, or from the keyboard */
		n = read(in, bytes, sizeof bytes);
		n = n > 0 ? write(in == fd ? 1 : fd, bytes, (size_t)n) : n;
	}
	if (n < 0)
		perror("poke");
	return n < 0;
}
