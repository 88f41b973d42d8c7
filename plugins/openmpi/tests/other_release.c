/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Preloaded, makes Open MPI another release for who asks it. */
extern const char opal_version_string[];
const char opal_version_string[] = "4.1.99";
