/* A library whose memory goes with dlclose(3), without a call to munmap(2) that a hook would see. */

enum { SIZE = 1 << 20 };

/* The largest page that processors have. */
_Alignas(65536) unsigned char static_buffer[SIZE];
const unsigned long static_buffer_size = SIZE;
