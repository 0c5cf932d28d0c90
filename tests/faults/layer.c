/* Counts file operations of a process below FAULT_ROOT, and kills it or fails at one of them.

   Read from the environment when the library is loaded, and again when fault_arm() is called:

     FAULT_ROOT   folder to watch; without it nothing is watched
     FAULT_KINDS  kinds to count, such as "fsync,rename"; without it all of them
     FAULT_AT     number of the operation, from 1
     FAULT_DO     kill: die before it · tear: die in the middle of it (a write writes its first half) ·
                  fail: it fails once · fail-on: it and all later ones fail ·
                  signal: send a signal just before it · signal-on: also before all later ones
     FAULT_NUMBER error number or signal
     FAULT_PID    process that gets the signal; this one by default
     FAULT_LOG    file that gets a line for each operation: number, kind, path, new path and the size of
                  the file before it, separated by tabs

   Built with: cc -shared -fPIC -O1 -o layer.so layer.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum verdict { GO, FAIL, TEAR };

static char root[PATH_MAX], kinds[256], action[16];
static size_t root_length;
static long count, at;
static int chosen, victim, log_file = -1;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static const char *setting(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

__attribute__((constructor)) void fault_arm(void) {
  root_length = 0;
  snprintf(root, sizeof root, "%s", setting("FAULT_ROOT"));
  snprintf(kinds, sizeof kinds, "%s", setting("FAULT_KINDS"));
  snprintf(action, sizeof action, "%s", setting("FAULT_DO"));
  count = 0;
  at = atol(setting("FAULT_AT"));
  chosen = atoi(setting("FAULT_NUMBER"));
  victim = atoi(setting("FAULT_PID"));
  log_file = *setting("FAULT_LOG") ? REAL(open)(setting("FAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
  root_length = strlen(root);
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static const char *of_file(int file, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  buffer[length > 0 ? length : 0] = 0;
  return buffer;
}

static const char *absolute(int folder, const char *path, char *buffer) {
  if (*path == '/') return path;
  char above[PATH_MAX];
  if (folder == AT_FDCWD) {
    if (!getcwd(above, sizeof above)) *above = 0;
  } else {
    of_file(folder, above);
  }
  snprintf(buffer, PATH_MAX, "%.2000s/%.2000s", above, path);
  return buffer;
}

static int is_watched(const char *path) {
  return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static enum verdict judge(const char *kind, const char *path, const char *target) {
  if (!root_length || !(is_watched(path) || (target && is_watched(target)))) return GO;
  if (*kinds && !strstr(kinds, kind)) return GO;
  long number = __sync_add_and_fetch(&count, 1);
  if (log_file >= 0) {
    char line[3 * PATH_MAX];
    struct stat status;
    long size = stat(path, &status) == 0 ? (long)status.st_size : 0;
    int length = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\t%ld\n", number, kind, path, target ? target : "", size);
    if (REAL(write)(log_file, line, length) != length) abort();
  }
  if (number == at && strcmp(action, "kill") == 0) die();
  if ((number == at && strcmp(action, "signal") == 0) || (number >= at && strcmp(action, "signal-on") == 0))
    kill(victim ? victim : getpid(), chosen);
  if (number == at && strcmp(action, "tear") == 0) return TEAR;
  if ((number == at && strcmp(action, "fail") == 0) || (number >= at && strcmp(action, "fail-on") == 0)) {
    errno = chosen;
    return FAIL;
  }
  return GO;
}

/* Do the operation unless it is to fail; die after it where it is to be torn. */
#define GUARD(kind, path, target, call)                 \
  enum verdict verdict = judge(kind, path, target);     \
  if (verdict == FAIL) return -1;                       \
  __typeof__(call) result = call;                       \
  if (verdict == TEAR) die();                           \
  return result

#define OPEN(name)                                                              \
  int name(const char *path, int flags, ...) {                                  \
    char buffer[PATH_MAX];                                                      \
    va_list rest;                                                               \
    va_start(rest, flags);                                                      \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;     \
    va_end(rest);                                                               \
    if (!(flags & (O_WRONLY | O_RDWR))) return REAL(name)(path, flags, mode);   \
    GUARD("open", absolute(AT_FDCWD, path, buffer), NULL, REAL(name)(path, flags, mode)); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                \
  int name(int folder, const char *path, int flags, ...) {                          \
    char buffer[PATH_MAX];                                                          \
    va_list rest;                                                                   \
    va_start(rest, flags);                                                          \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;         \
    va_end(rest);                                                                   \
    if (!(flags & (O_WRONLY | O_RDWR))) return REAL(name)(folder, path, flags, mode); \
    GUARD("open", absolute(folder, path, buffer), NULL, REAL(name)(folder, path, flags, mode)); \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                           \
  FILE *name(const char *path, const char *mode) {                            \
    char buffer[PATH_MAX];                                                    \
    if (!strpbrk(mode, "wa+")) return REAL(name)(path, mode);                 \
    if (judge("open", absolute(AT_FDCWD, path, buffer), NULL) == FAIL) return NULL; \
    return REAL(name)(path, mode);                                            \
  }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size) {
  char buffer[PATH_MAX];
  if (!root_length) return REAL(write)(file, data, size);
  enum verdict verdict = judge("write", of_file(file, buffer), NULL);
  if (verdict == FAIL) return -1;
  ssize_t result = REAL(write)(file, data, verdict == TEAR ? size / 2 : size);
  if (verdict == TEAR) die();
  return result;
}

ssize_t writev(int file, const struct iovec *parts, int number) {
  char buffer[PATH_MAX];
  GUARD("write", of_file(file, buffer), NULL, REAL(writev)(file, parts, number));
}

#define PWRITE(name, offset_type)                                                    \
  ssize_t name(int file, const void *data, size_t size, offset_type offset) {        \
    char buffer[PATH_MAX];                                                           \
    GUARD("write", of_file(file, buffer), NULL, REAL(name)(file, data, size, offset)); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
  char buffer[PATH_MAX];
  GUARD("write", of_file(out, buffer), NULL, REAL(sendfile)(out, in, offset, size));
}

ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size, unsigned flags) {
  char buffer[PATH_MAX];
  GUARD("write", of_file(out, buffer), NULL, REAL(copy_file_range)(in, in_offset, out, out_offset, size, flags));
}

#define ON_FILE(name, kind, parameters, ...)                                 \
  int name parameters {                                                      \
    char buffer[PATH_MAX];                                                   \
    GUARD(kind, of_file(file, buffer), NULL, REAL(name)(__VA_ARGS__));       \
  }
ON_FILE(fsync, "fsync", (int file), file)
ON_FILE(fdatasync, "fsync", (int file), file)
ON_FILE(ftruncate, "truncate", (int file, off_t size), file, size)
ON_FILE(ftruncate64, "truncate", (int file, off64_t size), file, size)

#define ON_PATH(name, kind, parameters, folder, ...)                              \
  int name parameters {                                                           \
    char buffer[PATH_MAX];                                                        \
    GUARD(kind, absolute(folder, path, buffer), NULL, REAL(name)(__VA_ARGS__));   \
  }
ON_PATH(unlink, "unlink", (const char *path), AT_FDCWD, path)
ON_PATH(unlinkat, "unlink", (int folder, const char *path, int flags), folder, folder, path, flags)
ON_PATH(rmdir, "rmdir", (const char *path), AT_FDCWD, path)
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), AT_FDCWD, path, mode)
ON_PATH(mkdirat, "mkdir", (int folder, const char *path, mode_t mode), folder, folder, path, mode)
ON_PATH(truncate, "truncate", (const char *path, off_t size), AT_FDCWD, path, size)
ON_PATH(truncate64, "truncate", (const char *path, off64_t size), AT_FDCWD, path, size)

#define ON_PAIR(name, kind, parameters, from, to, ...)                                          \
  int name parameters {                                                                         \
    char one[PATH_MAX], other[PATH_MAX];                                                        \
    GUARD(kind, absolute(from, path, one), absolute(to, target, other), REAL(name)(__VA_ARGS__)); \
  }
ON_PAIR(rename, "rename", (const char *path, const char *target), AT_FDCWD, AT_FDCWD, path, target)
ON_PAIR(renameat, "rename", (int from, const char *path, int to, const char *target), from, to, from, path, to, target)
ON_PAIR(renameat2, "rename", (int from, const char *path, int to, const char *target, unsigned flags), from, to, from,
        path, to, target, flags)
ON_PAIR(link, "link", (const char *path, const char *target), AT_FDCWD, AT_FDCWD, path, target)
