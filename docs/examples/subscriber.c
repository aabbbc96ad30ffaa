/* Print events, one line each: topic, blank, JSON.
 *
 *     cc subscriber.c -o subscriber $(pkg-config --cflags --libs libzmq)
 *     ./subscriber ipc:///run/cabinsense/events.sock identity
 *     ./subscriber tcp://car:5555 identity tablet.key_secret 'PUBLIC KEY OF THE DAEMON'
 *
 * Needs libzmq 4.2 or newer. It goes on by itself when the daemon goes and comes back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { KEY = 40, LINE = 512 };

static void fail(const char *what) {
    fprintf(stderr, "error: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

static void set(void *socket, int option, const void *value, size_t size) {
    if (zmq_setsockopt(socket, option, value, size) != 0)
        fail("a socket option is not taken");
}

/* Both halves of the key in a file that `cabinsense keys new` has made. */
static void read_key(const char *path, char public_half[KEY + 1], char secret_half[KEY + 1]) {
    char line[LINE];
    int found = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    while (fgets(line, sizeof line, file) != NULL) {
        found += sscanf(line, " public-key = \"%40[^\"]\"", public_half) == 1;
        found += sscanf(line, " secret-key = \"%40[^\"]\"", secret_half) == 1;
    }
    fclose(file);
    if (found != 2) {
        fprintf(stderr, "error: %s: not both halves of a key\n", path);
        exit(1);
    }
}

/* Receive one part and print it; returns whether another one follows. */
static int print_part(void *socket) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    if (zmq_msg_recv(&part, socket, 0) < 0)
        fail("nothing can be received");
    int more = zmq_msg_more(&part);
    fwrite(zmq_msg_data(&part), 1, zmq_msg_size(&part), stdout);
    putchar(more ? ' ' : '\n');
    zmq_msg_close(&part);
    return more;
}

int main(int count, char **arguments) {
    if (count != 3 && count != 5) {
        fprintf(stderr, "usage: %s ENDPOINT TOPIC [KEY_FILE SERVER_KEY]\n", arguments[0]);
        return 2;
    }
    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_SUB);
    int ping_ms = 2000, silent_ms = 6000;
    set(socket, ZMQ_HEARTBEAT_IVL, &ping_ms, sizeof ping_ms);
    set(socket, ZMQ_HEARTBEAT_TIMEOUT, &silent_ms, sizeof silent_ms);
    if (count == 5) {
        char public_half[KEY + 1], secret_half[KEY + 1];
        read_key(arguments[3], public_half, secret_half);
        set(socket, ZMQ_CURVE_PUBLICKEY, public_half, KEY + 1);
        set(socket, ZMQ_CURVE_SECRETKEY, secret_half, KEY + 1);
        set(socket, ZMQ_CURVE_SERVERKEY, arguments[4], strlen(arguments[4]) + 1);
    }
    set(socket, ZMQ_SUBSCRIBE, arguments[2], strlen(arguments[2]));
    if (zmq_connect(socket, arguments[1]) != 0)
        fail(arguments[1]);
    for (;;) {
        while (print_part(socket))
            ;
        fflush(stdout);
    }
}
