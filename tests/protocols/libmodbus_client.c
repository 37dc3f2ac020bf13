/* A libmodbus client for the tests: asks the server on 127.0.0.1:PORT for all that libmodbus can ask, and prints each
   answer as one line. Exit code 0 unless something did not come back as it was written. */
#include <errno.h>
#include <modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed = 0;

static void words(const char *name, int got, const uint16_t *values)
{
    printf("%s %d:", name, got);
    for (int i = 0; i < got; i++) printf(" %u", values[i]);
    printf("\n");
    if (got < 0) failed = 1;
}

static void bits(const char *name, int got, const uint8_t *values)
{
    printf("%s %d:", name, got);
    for (int i = 0; i < got; i++) printf(" %u", values[i]);
    printf("\n");
    if (got < 0) failed = 1;
}

static void done(const char *name, int got)
{
    printf("%s %d\n", name, got);
    if (got < 0) failed = 1;
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    if (!ctx || modbus_set_slave(ctx, 1) || modbus_connect(ctx)) return 2;
    if (modbus_set_response_timeout(ctx, 60, 0) || modbus_set_byte_timeout(ctx, 60, 0)) return 2;
    uint16_t regs[125];
    uint8_t coils[2000];
    const uint16_t three[3] = {7, 8, 65535};
    const uint8_t five[5] = {1, 1, 0, 0, 1};
    uint8_t id[256];

    bits("coils", modbus_read_bits(ctx, 3, 11, coils), coils);
    bits("discrete", modbus_read_input_bits(ctx, 0, 9, coils), coils);
    words("holding", modbus_read_registers(ctx, 10, 4, regs), regs);
    words("input", modbus_read_input_registers(ctx, 0, 125, regs), regs);
    done("write coil", modbus_write_bit(ctx, 0, 1));
    done("write register", modbus_write_register(ctx, 20, 4321));
    done("write coils", modbus_write_bits(ctx, 30, 5, five));
    done("write registers", modbus_write_registers(ctx, 21, 3, three));
    done("mask", modbus_mask_write_register(ctx, 20, 0x00F2, 0x0025));
    words("read and write", modbus_write_and_read_registers(ctx, 40, 3, three, 20, 4, regs), regs);
    bits("coils again", modbus_read_bits(ctx, 30, 5, coils), coils);
    int size = modbus_report_slave_id(ctx, sizeof id, id);
    printf("id %d: %.*s\n", size, size > 0 ? size : 0, id);
    if (size < 0) failed = 1;
    int refused = modbus_read_registers(ctx, 60000, 2, regs);
    printf("refused %d: %s\n", refused, modbus_strerror(errno));
    if (refused != -1 || errno != EMBXILADD) failed = 1;
    words("after the refusal", modbus_read_registers(ctx, 10, 1, regs), regs);
    modbus_close(ctx);
    modbus_free(ctx);
    return failed;
}
