/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A stand-in for libfabric, which imports the plug-in's monitor and has its
 * lock.  Tests on it decide when libfabric asks what; that the answers are of
 * use is for the tests that send bytes. */
#ifndef HOST_H
#define HOST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* libfabric's lock, held during every call but those of start and stop. */
extern pthread_mutex_t host_lock;

/* Loads the plug-in and starts its monitor. */
void host_load(void);

/* These take the lock. */
int host_subscribe(const void *addr, size_t len);
bool host_valid(const void *addr, size_t len);

/* These are for who holds it. */
int host_locked_subscribe(const void *addr, size_t len);
void host_locked_unsubscribe(const void *addr, size_t len);
bool host_locked_valid(const void *addr, size_t len);

int host_start(void);
void host_stop(void);

/* Called with the lock held when libfabric is told of a range. */
extern void (*host_notified)(const void *addr, size_t len);

/* And when it has been told, without the lock, on the plug-in's thread. */
extern void (*host_told)(const void *addr, size_t len);

/* How often that was. */
extern unsigned long host_notifications;

/* Takes the lock, and has the plug-in's thread wait for it meanwhile: what
 * changes now it hears of later.  Returns the page of which the thread is about
 * to tell. */
void *host_hold(void);
void host_release(void);

#endif
