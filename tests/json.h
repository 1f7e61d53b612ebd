/* Whether a program's output is JSON (RFC 8259). */
#ifndef AG_TEST_JSON_H
#define AG_TEST_JSON_H

/* The place behind the value that begins at text, and behind the white space around it; NULL if
 * there is no value. */
const char *ag_test_json_end(const char *text);

#endif
