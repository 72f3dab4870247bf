/* Makes a process wait at each sync: loaded before the C library, whose functions of these names it takes the place of.
 * How long, in ms, stands in the file that SLOW_SYNC_FILE names, while there is such a file. */

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_as_told(void) {
    const char *path = getenv("SLOW_SYNC_FILE");
    FILE *file = path ? fopen(path, "re") : NULL;
    long ms = 0;
    if (!file) {
        return;
    }
    if (fscanf(file, "%ld", &ms) == 1 && ms > 0) {
        struct timespec left = {ms / 1000, ms % 1000 * 1000000};
        while (nanosleep(&left, &left)) {
        }
    }
    fclose(file);
}

int fsync(int file) {
    wait_as_told();
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    wait_as_told();
    return (int)syscall(SYS_fdatasync, file);
}
