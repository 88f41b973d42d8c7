/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A library with a static buffer. */
__attribute__((visibility("default"), aligned(4096))) char library_buffer[65536];
