/* A library whose memory goes with dlclose(3), without a call to munmap(2) that a hook would see. */

enum { SIZE = 1 << 20 };

_Alignas(4096) unsigned char static_buffer[SIZE];
const unsigned long static_buffer_size = SIZE;
