/* A libmodbus server for the tests: 100 cells of each kind, listens on a free port of 127.0.0.1, prints the port, serves
   one client until it leaves. Registers start as 100 + address (holding) and 500 + address (input), bits alternate. */
#include <arpa/inet.h>
#include <modbus.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *map = modbus_mapping_new(100, 100, 100, 100);
    if (!ctx || !map) return 2;
    for (int i = 0; i < 100; i++) {
        map->tab_registers[i] = 100 + i;
        map->tab_input_registers[i] = 500 + i;
        map->tab_bits[i] = i & 1;
        map->tab_input_bits[i] = 1 - (i & 1);
    }
    /* Our own listener, since modbus_tcp_listen cannot say which port it got. */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1)) return 2;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    modbus_tcp_accept(ctx, &listener);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        int got = modbus_receive(ctx, query);
        if (got < 0) break;
        if (got > 0) modbus_reply(ctx, query, got, map);
    }
    modbus_free(ctx);
    return 0;
}
