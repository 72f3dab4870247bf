/* Looks names up as any program does: `lookup FAMILY NAME...`, family 0 (any), 4 or 6. Prints a line for each name: its addresses
 * in the order of the system's resolver, or the error. */

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    int family = atoi(argv[1]);
    struct addrinfo hints;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    for (int i = 2; i < argc; i++) {
        struct addrinfo *found = NULL;
        int error = getaddrinfo(argv[i], NULL, &hints, &found);
        printf("%s", argv[i]);
        if (error != 0)
            printf(" error %s", error == EAI_NONAME    ? "EAI_NONAME"
                                : error == EAI_AGAIN   ? "EAI_AGAIN"
                                : error == EAI_NODATA  ? "EAI_NODATA"
                                : error == EAI_FAIL    ? "EAI_FAIL"
                                                       : gai_strerror(error));
        for (struct addrinfo *one = found; one != NULL; one = one->ai_next) {
            char text[INET6_ADDRSTRLEN];
            const void *address = one->ai_family == AF_INET
                                      ? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
                                      : (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
            printf(" %s", inet_ntop(one->ai_family, address, text, sizeof text));
        }
        printf("\n");
        if (found != NULL)
            freeaddrinfo(found);
    }
    return 0;
}
