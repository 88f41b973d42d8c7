// SPDX-License-Identifier: GPL-2.0
/*
 * Noted ranges, and what was touched of them: each chunk as one bit, and
 * nothing is forgotten.
 */
#include "fuzz.h"

/* The chunks of a range, up to the last that has a bit. */
static u32 chunks_of(u64 start, u64 last)
{
	u64 first = umn_chunk_of(start), end = umn_chunk_of(last);

	if (first >= CHUNKS)
		return 0;
	if (end >= CHUNKS)
		end = CHUNKS - 1;
	return (u32)(~0ULL << first & ~0ULL >> (63 - end));
}

static u32 chunks_of_note(const struct noted *note)
{
	return chunks_of(note->core.span.start, note->core.span.last);
}

/* Notes a range, or forgets that it was noted. */
void do_note(struct world *world, const u8 op[OP_BYTES])
{
	struct umn_touched *touched = &world->core.touched;
	struct noted *note = &world->notes[op[1] % MAX_NOTES];
	u64 start = op[2] % 44 * M_PAGE;
	u64 last = start + (op[3] % 20 + 1) * M_PAGE - 1;
	u8 ignore = op[4] & 0x80 ? op[4] % UMN_FILTERS : 0;

	if (note->used) {
		umn_touched_remove(touched, &note->core);
		note->used = false;
		return;
	}
	*note = (struct noted) { .used = true };
	umn_touched_add(touched, &note->core, start, last, ignore);
}

/* Its frames are what they were. */
void do_look(struct world *world, u8 which)
{
	struct noted *note = &world->notes[which % MAX_NOTES];

	if (!note->used)
		return;
	note->core.since = umn_touched_look(&world->core.touched);
	note->touched = 0;
	note->by_any = 0;
	note->times = 0;
}

void touch(struct world *world, u64 start, u64 last, u16 kind)
{
	bool split = kind == M_SPLIT;
	unsigned int i;

	umn_touched_invalidate(&world->core.touched, start, last, (u8)kind,
			       split);
	for (i = 0; i < MAX_NOTES; i++) {
		struct noted *note = &world->notes[i];
		u32 chunks = chunks_of(start, last) & chunks_of_note(note);

		if (!note->used)
			continue;
		note->times++;
		note->by_any |= chunks;
		/* By the page: an invalidation beside the range is none of it. */
		if (note->core.span.start > last || start > note->core.span.last)
			continue;
		if (split || !(note->core.ignore << UMN_FILTER_SHIFT & kind))
			note->touched |= chunks;
	}
}

static void check_note(struct world *world, const struct noted *note)
{
	struct umn_touched *touched = &world->core.touched;
	unsigned long chunk = umn_chunk_of(note->core.span.start);
	u32 found = 0;

	while (umn_touched_next(touched, &note->core, &chunk)) {
		must(chunk < CHUNKS, "a chunk behind the range was touched");
		must(!(found >> chunk & 1), "a chunk is found twice");
		found |= 1u << chunk++;
	}
	must(!(note->touched & ~found), "chunks %#x were touched, found are %#x",
	     note->touched, found);
	must(!(found & ~chunks_of_note(note)), "chunks beside the range");
	must(!(found & ~note->by_any) || note->times > UMN_TOUCHES,
	     "chunks %#x were not touched",
	     found & ~note->by_any);
}

void check_notes(struct world *world)
{
	unsigned int i;

	for (i = 0; i < MAX_NOTES; i++) {
		if (world->notes[i].used)
			check_note(world, &world->notes[i]);
	}
}
