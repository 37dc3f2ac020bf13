/* For tests: stands before the C library's adjtimex(2), and says of the kernel's clock what CLOCK_SAYS says: "sound", or
   that nobody keeps it. The kernel's own clock is that of the whole machine. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>

int adjtimex(struct timex *said) {
    const char *how = getenv("CLOCK_SAYS");
    int sound = how && !strcmp(how, "sound");
    memset(said, 0, sizeof *said);
    said->status = sound ? STA_PLL : STA_UNSYNC;
    said->maxerror = sound ? 2000 : 16000000;
    return sound ? TIME_OK : TIME_ERROR;
}
