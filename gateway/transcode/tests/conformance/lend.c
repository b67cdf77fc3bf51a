/* The runner is built for glibc 2.38 and the libstdc++ beside it. These are the only functions of theirs that it uses and that older
   systems do not have; on newer ones they do the same as the real ones. */
#include <stdlib.h>

long __isoc23_strtol(const char *text, char **end, int base) { return strtol(text, end, base); }
long long __isoc23_strtoll(const char *text, char **end, int base) { return strtoll(text, end, base); }
unsigned long __isoc23_strtoul(const char *text, char **end, int base) { return strtoul(text, end, base); }
unsigned long long __isoc23_strtoull(const char *text, char **end, int base) { return strtoull(text, end, base); }

/* std::ios_base::Init::Init(), where there is C++: not in the programs that the runner starts. */
__attribute__((weak)) void _ZNSt8ios_base4InitC1Ev(void *);

/* std::ios_base_library_init(): std::cout and the others are there. */
__attribute__((constructor)) void _ZSt21ios_base_library_initv(void) {
    static char init[16];
    if (_ZNSt8ios_base4InitC1Ev)
        _ZNSt8ios_base4InitC1Ev(init);
}
