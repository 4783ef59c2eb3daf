/* ipsec-mb's AES-GCM called directly, one packet after the other, for perf/crypto.rs: reads a line "DIRECTION KEY_BITS SIZE
 * SAS BURSTS" from standard input, answers with a line of nanoseconds, one figure a burst of 64 packets. DIRECTION is
 * "encrypt", "decrypt", or "bound", which answers with what the processor takes for one VAES round, one carry-less
 * product, and one of each beside the other, all of 512 bits, in picoseconds. */
#include <immintrin.h>
#include <intel-ipsec-mb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BURST = 64, SAS_MAX = 1024, ROOM = 16384, HEAD = 128 + 50, AAD = 8, TAG = 16 };

static struct gcm_key_data *keys;
static uint8_t *images, *rooms;
static IMB_MGR *manager;

static uint64_t now_ns(void)
{
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void run(int seal, int bits, uint8_t *data, uint64_t size, const struct gcm_key_data *key, uint8_t *tag)
{
        struct gcm_context_data context;
        static const uint8_t iv[12] = {1, 2, 3}, aad[AAD] = {4, 5, 6};
        if (seal && bits == 128)
                IMB_AES128_GCM_ENC(manager, key, &context, data, data, size, iv, aad, AAD, tag, TAG);
        else if (seal)
                IMB_AES256_GCM_ENC(manager, key, &context, data, data, size, iv, aad, AAD, tag, TAG);
        else if (bits == 128)
                IMB_AES128_GCM_DEC(manager, key, &context, data, data, size, iv, aad, AAD, tag, TAG);
        else
                IMB_AES256_GCM_DEC(manager, key, &context, data, data, size, iv, aad, AAD, tag, TAG);
}

static void setup(int bits)
{
        for (int i = 0; i < SAS_MAX; i++) {
                uint8_t key[32];
                memset(key, i, sizeof key);
                key[0] = i >> 8;
                if (bits == 128)
                        IMB_AES128_GCM_PRE(manager, key, &keys[i]);
                else
                        IMB_AES256_GCM_PRE(manager, key, &keys[i]);
        }
}

static int measure(int seal, int bits, uint64_t size, int sas, int bursts)
{
        for (int i = 0; i < SAS_MAX && !seal; i++) {
                uint8_t *image = images + (uint64_t)i * ROOM;
                memset(image, 0x5a, size);
                run(1, bits, image, size, &keys[i % sas], image + size);
        }
        for (int burst = 0; burst < bursts; burst++) {
                uint64_t good = 0;
                for (int i = 0; i < BURST; i++) {
                        int at = (burst * BURST + i) % sas;
                        memcpy(rooms + (uint64_t)i * ROOM + HEAD, images + (uint64_t)at * ROOM, size + TAG);
                }
                uint64_t start = now_ns();
                for (int i = 0; i < BURST; i++) {
                        uint8_t *data = rooms + (uint64_t)i * ROOM + HEAD;
                        const struct gcm_key_data *key = &keys[(burst * BURST + i) % sas];
                        if (seal) {
                                run(1, bits, data, size, key, data + size);
                        } else {
                                uint8_t tag[TAG];
                                run(0, bits, data, size, key, tag);
                                good += memcmp(tag, data + size, TAG) == 0;
                        }
                }
                printf("%llu ", (unsigned long long)(now_ns() - start));
                if (!seal && good != BURST)
                        return 1;
        }
        printf("\n");
        return 0;
}

#define TURNS 200000
/* Picoseconds of one turn, the least of some. */
#define LEAST(body)                                                                                                    \
        ({                                                                                                             \
                uint64_t least = UINT64_MAX;                                                                           \
                for (int trial = 0; trial < 7; trial++) {                                                              \
                        uint64_t start = now_ns();                                                                     \
                        for (int turn = 0; turn < TURNS; turn++) {                                                     \
                                body;                                                                                  \
                        }                                                                                              \
                        uint64_t took = now_ns() - start;                                                              \
                        least = took < least ? took : least;                                                           \
                }                                                                                                      \
                least * 1000 / TURNS;                                                                                  \
        })

#define AES(r) "vaesenc %%zmm16, %%zmm" #r ", %%zmm" #r "\n"
#define MUL(r) "vpclmulqdq $0x10, %%zmm16, %%zmm" #r ", %%zmm" #r "\n"
#define ALL_AES                                                                                                        \
        "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12",      \
                "zmm13", "zmm14", "zmm15"

static void bound(void)
{
        uint64_t aes = LEAST(__asm__ volatile(AES(0) AES(1) AES(2) AES(3) AES(4) AES(5) AES(6) AES(7) ::: ALL_AES));
        uint64_t mul = LEAST(__asm__ volatile(MUL(8) MUL(9) MUL(10) MUL(11) MUL(12) MUL(13) MUL(14) MUL(15)::: ALL_AES));
        uint64_t both = LEAST(__asm__ volatile(AES(0) MUL(8) AES(1) MUL(9) AES(2) MUL(10) AES(3) MUL(11) AES(4) MUL(12)
                                                       AES(5) MUL(13) AES(6) MUL(14) AES(7) MUL(15)::: ALL_AES));
        printf("%llu %llu %llu\n", (unsigned long long)aes / 8, (unsigned long long)mul / 8,
               (unsigned long long)both / 8);
}

int main(void)
{
        char direction[16];
        int bits, sas, bursts, bits_set_up = 0;
        unsigned long size;

        manager = alloc_mb_mgr(0);
        if (!manager)
                return 1;
        IMB_ARCH arch;
        init_mb_mgr_auto(manager, &arch);
        keys = aligned_alloc(64, sizeof *keys * SAS_MAX);
        images = calloc(SAS_MAX, ROOM);
        rooms = aligned_alloc(64, BURST * ROOM);
        if (!keys || !images || !rooms)
                return 1;
        memset(rooms, 0, BURST * ROOM);
        while (scanf("%15s %d %lu %d %d", direction, &bits, &size, &sas, &bursts) == 5) {
                if (strcmp(direction, "bound") == 0) {
                        bound();
                } else {
                        if (sas < 1 || sas > SAS_MAX || size + HEAD + TAG > ROOM)
                                return 1;
                        if (bits != bits_set_up)
                                setup(bits);
                        bits_set_up = bits;
                        if (measure(strcmp(direction, "encrypt") == 0, bits, size, sas, bursts))
                                return 1;
                }
                fflush(stdout);
        }
        return 0;
}
