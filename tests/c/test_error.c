/* error.h: the table of statuses is complete and says something about each. */
#include <string.h>

#include "check.h"
#include "error.h"

static const struct {
    int code;
    enum wso_kind kind;
    const char *text;
} rows[] = {
#define AS_ROW(code, kind, text) {code, kind, text},
    WSO_STATUS_TABLE(AS_ROW)
#undef AS_ROW
};

#define ROWS ((int)(sizeof rows / sizeof *rows))

TEST(success_is_zero_and_codes_count_up)
{
    CHECK_EQ(WSO_OK, 0);
    for (int i = 0; i < ROWS; i++) {
        CHECK_EQ(rows[i].code, i);
    }
}

TEST(each_status_has_a_text_of_its_own)
{
    for (int i = 0; i < ROWS; i++) {
        CHECK(rows[i].text[0] != '\0');
        for (int j = 0; j < i; j++) {
            CHECK(strcmp(rows[i].text, rows[j].text) != 0);
        }
    }
}

TEST(each_error_becomes_an_exception)
{
    for (int i = 0; i < ROWS; i++) {
        /* An interrupted wait becomes what the signal's own handler raises; a busy wire is waited for. */
        bool silent = rows[i].code == WSO_OK || rows[i].code == WSO_EINTR ||
                      rows[i].code == WSO_EBUSY;
        CHECK_EQ(rows[i].kind == WSO_KIND_NONE, silent);
    }
}
