// SPDX-License-Identifier: BSD-2-Clause
// A server that knows nothing of gapless, linked statically: no library can come between it and the kernel.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *version;

static void *serve(void *argument)
{
    int client = (int)(long)argument;
    char request[8192];
    size_t have = 0;
    ssize_t got;
    while (
        have < sizeof(request) - 1 && (got = read(client, request + have, sizeof(request) - 1 - have)) > 0) {
        have += (size_t)got;
        request[have] = 0;
        if (!strstr(request, "\r\n\r\n")) {
            continue;
        }
        int last = strcasestr(request, "\r\nConnection: close\r\n") != NULL;
        char answer[256];
        int size = snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n%s\r\n%s\n",
            strlen(version) + 1, last ? "Connection: close\r\n" : "", version);
        if (write(client, answer, (size_t)size) != size || last) {
            break;
        }
        have = 0;
    }
    close(client);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    address.sin_port = htons((unsigned short)atoi(argc > 1 ? argv[1] : "8080"));
    version = getenv("GAPLESS_GENERATION") ? getenv("GAPLESS_GENERATION") : "0";
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 511)) {
        perror("server");
        return 1;
    }
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&small, 65536);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        pthread_t thread;
        if (client >= 0) {
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
            if (pthread_create(&thread, &small, serve, (void *)(long)client)) {
                close(client);
            }
        }
    }
}
