//go:build ignore

// Prints what robfig/cron v3 answers, for the tests of our own schedules. Each line has a schedule, a zone, a start and
// the four moments after it, separated by tabs; "error" when the schedule is refused, "never" where the moments end.
//
//	cd hack/cluster && go run golden/cron.go > ../../operators/workloads/tests/golden/cron.txt
//
// The build tag keeps it out of the module's packages: go.mod lists robfig/cron as Kubernetes' dependency only.
package main

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
)

// Zones in which clocks change at different times of the day, by different amounts, or not at all, and moments shortly
// before some of those changes.
var zones = []struct {
	name   string
	starts []string
}{
	{"UTC", []string{"2026-01-01T00:00:00Z", "2026-02-27T23:59:59Z", "2027-12-31T23:59:30Z", "2096-02-28T12:00:00Z"}},
	{"America/New_York", []string{"2026-03-08T04:00:00Z", "2026-03-08T06:59:59Z", "2026-11-01T03:30:00Z", "2026-11-01T05:30:00Z", "2026-11-01T06:10:10Z"}},
	{"Europe/Berlin", []string{"2026-03-28T22:00:00Z", "2026-03-29T00:59:00Z", "2026-10-24T23:30:00Z", "2026-10-25T00:40:20Z"}},
	{"Europe/London", []string{"2026-03-29T00:30:00Z", "2026-10-25T00:10:00Z"}},
	{"Australia/Lord_Howe", []string{"2026-04-04T14:30:00Z", "2026-10-03T15:00:00Z", "2026-10-03T15:29:59Z"}},
	{"America/Sao_Paulo", []string{"2018-11-03T20:00:00Z", "2018-11-04T02:59:00Z", "2019-02-17T00:30:00Z"}},
	{"Asia/Beirut", []string{"2026-03-27T20:00:00Z", "2026-03-28T21:30:00Z", "2026-10-24T19:30:00Z"}},
	{"America/Havana", []string{"2026-03-08T03:00:00Z", "2026-11-01T03:30:00Z"}},
	{"Asia/Kolkata", []string{"2026-06-30T18:29:59Z"}},
	{"Asia/Kathmandu", []string{"2026-12-31T18:10:00Z"}},
	{"Pacific/Chatham", []string{"2026-04-04T13:00:00Z", "2026-09-26T13:40:00Z"}},
	{"Pacific/Kiritimati", []string{"2026-02-28T09:00:00Z"}},
	{"Pacific/Marquesas", []string{"2026-05-31T09:00:00Z"}},
	{"America/St_Johns", []string{"2026-03-08T05:00:00Z", "2026-11-01T04:00:00Z"}},
	{"Antarctica/Troll", []string{"2026-03-29T00:10:00Z", "2026-10-25T00:20:00Z"}},
	{"Africa/Cairo", []string{"2026-04-23T20:00:00Z", "2026-10-29T19:30:00Z"}},
}

// Evaluated in every zone.
var everywhere = []string{
	"* * * * *", "*/15 * * * *", "0 * * * *", "@hourly", "30 2 * * *", "0 0 * * *", "@daily", "30 1 * * *",
	"0 1-3 * * *", "15 0 * * *", "59 23 * * *", "0 3 * * sun", "0 12 1 * *", "0 0 1,15 * 3", "0 0 8 * *",
	"45 1,2 * 3,10,11 *", "30 6-16/4 * * 1-5", "@every 90m",
}

// Evaluated in some: every part of the dialect.
var dialect = []string{
	"@yearly", "@annually", "@monthly", "@weekly", "@midnight", "@every 1h30m", "@every 1s", "@every 500ms", "@every 1.5h",
	"@every -3m", "@every 0", "@every 5", "@every", "@reboot", "@Hourly", " @hourly", "@every  1h",
	"0 0 29 2 *", "30 2 31 2 *", "0 0 31 4,6,9,11 *", "0 0 30 2 1", "0 0 31 * *", "0 0 * 2 *", "0 0 13 * 5", "0 0 13 * ?",
	"0 0 ? * FRI", "0 0 */1 * 5", "0 0 */2 * 5", "0 0 1-31 * 5", "0 0 13 * 0-6", "0 0 13 * */2",
	"5/20 * * * *", "5-59/20 * * * *", "*/7 */5 */9 * *", "1,2,,3 * * * *", ", * * * *", "* * * * ,", "+5 * * * *",
	"0 0 1 JAN-mar,dec *", "0 0 * * mon-FRI/2", "0 0 * * 7", "0 0 * * sat-sun", "60 * * * *", "* 24 * * *", "* * 0 * *",
	"* * 32 * *", "* * * 0 *", "* * * 13 *", "*-5 3 * * *", "?-5/7 3 * * *", "1-2-3 * * * *", "1/2/3 * * * *", "*/0 * * * *",
	"*/60 * * * *", "*/99999 * * * *", "9-3 * * * *", "-1 * * * *", "x * * * *", "1- * * * *", "* * * *", "* * * * * *", "",
	"0 0 L * *", "0 0 * * 5#2", "0 0 15W * *", "H * * * *", "0\t4\t*\t*\t*", "  0  5  *  *  *  ",
	"99999999999999999999 * * * *", "0x5 * * * *", "1_0 * * * *",
	"TZ=Asia/Tokyo 0 9 * * *", "CRON_TZ=America/New_York 30 2 8 3 *", "TZ=Nowhere/Land 0 9 * * *", "TZ=UTC", "TZ=0",
	"TZ= 0 9 * * *", "TZ=Asia/Tokyo  @daily", "TZ=Asia/Tokyo @every 2h", "0 9 * * * TZ=UTC",
}

func main() {
	fmt.Println("# Written by hack/cluster/golden/cron.go: schedule, zone, start, the four moments after it.")
	for _, zone := range zones {
		for _, start := range zone.starts {
			for _, spec := range everywhere {
				answer(spec, zone.name, start)
			}
		}
	}
	for _, spec := range dialect {
		answer(spec, "UTC", "2026-01-31T10:20:30Z")
		answer(spec, "America/New_York", "2026-02-14T22:59:59Z")
		answer(spec, "Asia/Kolkata", "2027-02-28T18:30:00Z")
	}
}

func answer(spec, zone, start string) {
	after, err := time.Parse(time.RFC3339, start)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\t%s\t%s\t%s\n", strings.ReplaceAll(spec, "\t", "\\t"), zone, start, moments(spec, zone, after))
}

// The zone reaches the parser as Kubernetes' controller passes it.
func moments(spec, zone string, after time.Time) (found string) {
	defer func() {
		if recover() != nil {
			found = "error"
		}
	}()
	if !strings.Contains(spec, "TZ") {
		spec = "TZ=" + zone + " " + spec
	}
	schedule, err := cron.ParseStandard(spec)
	if err != nil {
		return "error"
	}
	var list []string
	for range 4 {
		after = schedule.Next(after)
		if after.IsZero() {
			list = append(list, "never")
			break
		}
		list = append(list, after.UTC().Format(time.RFC3339))
	}
	return strings.Join(list, " ")
}
