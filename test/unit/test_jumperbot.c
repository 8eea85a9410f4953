/* test_jumperbot.c - tests how jumperbot computes its figures: the classes of round trips, the
 * percentiles, and reports whose counts have wrapped around. */
#define main jumperbot_main
#include "../../jumperbot.c"
#undef main

#include <stdio.h>

static int passed, failed;

static void check(const char *what, int good)
{
	if (good)
		passed++;
	else {
		failed++;
		printf("FAIL - %s\n", what);
	}
}

/* Each doubling has four classes, and a time is in the first class that ends after it. */
static void test_classes(void)
{
	static const int64_t ends[] = {1280, 1536, 1792, 2048, 2560};
	uint32_t counts[COUNTS] = {0};
	int i, good = 1;

	for (i = 0; i < 5; i++)
		good &= class_end(40 + i) == ends[i];
	check("the ends of the classes", good);
	count_time(counts, 1279);
	count_time(counts, 1280);
	count_time(counts, 1280);
	check("a time at the end of a class is in the next one",
	      counts[TIMES + 40] == 1 && counts[TIMES + 41] == 2 && counts[LONGEST] == 1280);
	count_time(counts, INT64_C(1) << 40);
	check("the last class has no end", counts[TIMES + CLASSES - 1] == 1);
}

static int us_of(double ms)
{
	return (int)(ms * 1000 + 0.5);
}

/* Of the times from 1 to 10,000 us, half are at most 5,000 us. That time is in the class that ends
 * at 5,120 us. */
static void test_percentiles(void)
{
	uint32_t counts[COUNTS] = {0}, nothing[COUNTS] = {0};
	long long sums[COUNTS] = {0};
	int us;

	check("without a phrase, the percentiles are 0", percentile(sums, 99) == 0);
	for (us = 1; us <= 10000; us++)
		count_time(counts, us);
	counts[HEARD] = 10000;
	add_up(sums, nothing, counts);
	check("half of the times", us_of(percentile(sums, 50)) == 5120);
	check("99 of 100 times", us_of(percentile(sums, 99)) == 10000);
}

static void test_reports(void)
{
	uint32_t before[COUNTS] = {0}, after[COUNTS] = {0};
	long long sums[COUNTS] = {0};

	before[RECEIVED] = UINT32_MAX - 9;
	before[IN_ROOM] = 7;
	after[RECEIVED] = 22;
	after[IN_ROOM] = 3;
	sums[RECEIVED] = 5000000000;
	sums[IN_ROOM] = 10;
	sums[LAG] = 30;
	after[LAG] = 20;
	add_up(sums, before, after);
	check("a count that has wrapped around", sums[RECEIVED] == 5000000032);
	check("a count that has become less", sums[IN_ROOM] == 6);
	check("the largest lag is kept", sums[LAG] == 30);
	after[SENT] = 9;
	after[HEARD] = 4;
	after[BOUNCED] = 2;
	after[UNHEARD] = 1;
	check("phrases that may still come back", awaited(after) == 2);
}

int main(void)
{
	test_classes();
	test_percentiles();
	test_reports();
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
