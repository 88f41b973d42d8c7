/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "layout.h"

#include <string.h>

typedef void function(void);

/* <ucs/memory/rcache.h> of UCX 1.13. */
struct params_1_13 {
	size_t region_struct_size;
	size_t alignment;
	size_t max_alignment;
	int events;
	int event_priority;
	const void *ops;
	void *context;
	int flags;
	unsigned long max_regions;
	size_t max_size;
	size_t max_unreleased;
};

struct ops_1_13 {
	function *mem_reg, *mem_dereg, *dump_region;
};

/* The same of UCX 1.18. */
struct params_1_18 {
	size_t region_struct_size;
	int events;
	int event_priority;
	const void *ops;
	void *context;
	int flags;
	unsigned long max_regions;
	size_t max_size;
	size_t max_unreleased;
};

struct ops_1_18 {
	function *mem_reg, *mem_dereg, *merge, *dump_region;
};

#define PARAMS(type)	{ sizeof(struct type), offsetof(struct type, events), \
			  offsetof(struct type, ops), \
			  offsetof(struct type, context) }
#define OPS(type)	sizeof(struct type), offsetof(struct type, mem_reg), \
			offsetof(struct type, mem_dereg), \
			offsetof(struct type, dump_region)

static const struct layout layouts[] = {
	{ 1, 13, 0, PARAMS(params_1_13), { OPS(ops_1_13), 0 } },
	{ 1, 18, 1, PARAMS(params_1_18),
	  { OPS(ops_1_18), offsetof(struct ops_1_18, merge) } },
};

_Static_assert(sizeof(struct params_1_13) <= LAYOUT_PARAMS_MAX &&
	       sizeof(struct params_1_18) <= LAYOUT_PARAMS_MAX &&
	       sizeof(struct ops_1_13) <= LAYOUT_OPS_MAX &&
	       sizeof(struct ops_1_18) <= LAYOUT_OPS_MAX,
	       "LAYOUT_PARAMS_MAX and LAYOUT_OPS_MAX hold every version's");

const struct layout *layout_of(unsigned major, unsigned minor)
{
	for (size_t n = 0; n < sizeof(layouts) / sizeof(layouts[0]); n++)
		if (layouts[n].major == major && layouts[n].minor == minor)
			return &layouts[n];
	return NULL;
}

int layout_events(const struct layout *layout, const struct ucx_params *params)
{
	int events;

	memcpy(&events, (const char *)params + layout->params.events,
	       sizeof(events));
	return events;
}

void *layout_context(const struct layout *layout, const struct ucx_params *params)
{
	void *context;

	memcpy(&context, (const char *)params + layout->params.context,
	       sizeof(context));
	return context;
}

void layout_read_ops(const struct layout *layout, const struct ucx_params *params,
		     struct ucx_ops *ops)
{
	const char *from;

	memset(ops, 0, sizeof(*ops));
	memcpy(&from, (const char *)params + layout->params.ops, sizeof(from));
	memcpy(&ops->mem_reg, from + layout->ops.mem_reg, sizeof(ops->mem_reg));
	memcpy(&ops->mem_dereg, from + layout->ops.mem_dereg,
	       sizeof(ops->mem_dereg));
	memcpy(&ops->dump_region, from + layout->ops.dump_region,
	       sizeof(ops->dump_region));
	if (layout->ops.merge)
		memcpy(&ops->merge, from + layout->ops.merge, sizeof(ops->merge));
}

void layout_write_ops(const struct layout *layout, const struct ucx_ops *ops,
		      void *written)
{
	char *to = written;

	memcpy(to + layout->ops.mem_reg, &ops->mem_reg, sizeof(ops->mem_reg));
	memcpy(to + layout->ops.mem_dereg, &ops->mem_dereg,
	       sizeof(ops->mem_dereg));
	memcpy(to + layout->ops.dump_region, &ops->dump_region,
	       sizeof(ops->dump_region));
	if (layout->ops.merge)
		memcpy(to + layout->ops.merge, &ops->merge, sizeof(ops->merge));
}

void layout_copy_params(const struct layout *layout,
			const struct ucx_params *params, const void *ops,
			void *context, void *copy)
{
	char *to = copy;

	memcpy(to, params, layout->params.size);
	memcpy(to + layout->params.ops, &ops, sizeof(ops));
	memcpy(to + layout->params.context, &context, sizeof(context));
}
