// Package assert offers what tests of HumanEval-X call of github.com/stretchr/testify/assert.
package assert

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

// Assertions remembers the test that it reports to.
type Assertions struct {
	t testing.TB
}

// New returns assertions about one test.
func New(t testing.TB) *Assertions {
	return &Assertions{t}
}

func report(t testing.TB, holds bool, said string, values ...interface{}) bool {
	t.Helper()
	if !holds {
		t.Errorf("assertion failed: "+said, values...)
	}
	return holds
}

func same(expected, actual interface{}) bool {
	if expected == nil || actual == nil {
		return expected == actual
	}
	if one, isBytes := expected.([]byte); isBytes {
		other, isBytes := actual.([]byte)
		return isBytes && bytes.Equal(one, other) && (one == nil) == (other == nil)
	}
	return reflect.DeepEqual(expected, actual)
}

func sameValue(expected, actual interface{}) bool {
	if same(expected, actual) {
		return true
	}
	if expected == nil || actual == nil {
		return false
	}
	value, target := reflect.ValueOf(expected), reflect.TypeOf(actual)
	return value.Type().ConvertibleTo(target) &&
		reflect.DeepEqual(value.Convert(target).Interface(), actual)
}

func isNil(object interface{}) bool {
	if object == nil {
		return true
	}
	switch value := reflect.ValueOf(object); value.Kind() {
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Ptr, reflect.Slice:
		return value.IsNil()
	}
	return false
}

func isEmpty(object interface{}) bool {
	if isNil(object) {
		return true
	}
	switch value := reflect.ValueOf(object); value.Kind() {
	case reflect.Array, reflect.Chan, reflect.Map, reflect.Slice, reflect.String:
		return value.Len() == 0
	default:
		return value.IsZero()
	}
}

func number(object interface{}) float64 {
	switch value := reflect.ValueOf(object); value.Kind() {
	case reflect.Float32, reflect.Float64:
		return value.Float()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return float64(value.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return float64(value.Uint())
	}
	return math.NaN()
}

func contains(holder, element interface{}) bool {
	value := reflect.ValueOf(holder)
	switch value.Kind() {
	case reflect.String:
		return strings.Contains(value.String(), fmt.Sprint(element))
	case reflect.Map:
		for _, key := range value.MapKeys() {
			if same(key.Interface(), element) {
				return true
			}
		}
	case reflect.Array, reflect.Slice:
		for i := 0; i < value.Len(); i++ {
			if same(value.Index(i).Interface(), element) {
				return true
			}
		}
	}
	return false
}

func sameElements(one, other interface{}) bool {
	first, second := reflect.ValueOf(one), reflect.ValueOf(other)
	if isEmpty(one) && isEmpty(other) {
		return true
	}
	if first.Len() != second.Len() {
		return false
	}
	taken := make([]bool, second.Len())
next:
	for i := 0; i < first.Len(); i++ {
		for j := range taken {
			if !taken[j] && same(first.Index(i).Interface(), second.Index(j).Interface()) {
				taken[j] = true
				continue next
			}
		}
		return false
	}
	return true
}

func panics(call func()) (panicked bool) {
	defer func() { panicked = panicked || recover() != nil }()
	call()
	return false
}

// Equal holds if both are deeply equal and of the same type.
func (a *Assertions) Equal(expected, actual interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return Equal(a.t, expected, actual)
}

// NotEqual holds if Equal does not.
func (a *Assertions) NotEqual(expected, actual interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return NotEqual(a.t, expected, actual)
}

// EqualValues holds if both are equal after a conversion to the same type.
func (a *Assertions) EqualValues(expected, actual interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return EqualValues(a.t, expected, actual)
}

// True holds if the value is true.
func (a *Assertions) True(value bool, _ ...interface{}) bool {
	a.t.Helper()
	return True(a.t, value)
}

// False holds if the value is false.
func (a *Assertions) False(value bool, _ ...interface{}) bool {
	a.t.Helper()
	return False(a.t, value)
}

// Nil holds if the object is nil.
func (a *Assertions) Nil(object interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return Nil(a.t, object)
}

// NotNil holds if the object is not nil.
func (a *Assertions) NotNil(object interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return NotNil(a.t, object)
}

// Empty holds if the object is nil, zero, or has no elements.
func (a *Assertions) Empty(object interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return Empty(a.t, object)
}

// Len holds if the object has so many elements.
func (a *Assertions) Len(object interface{}, length int, _ ...interface{}) bool {
	a.t.Helper()
	return Len(a.t, object, length)
}

// InDelta holds if two numbers differ by at most delta.
func (a *Assertions) InDelta(expected, actual interface{}, delta float64, _ ...interface{}) bool {
	a.t.Helper()
	return InDelta(a.t, expected, actual, delta)
}

// InEpsilon holds if two numbers differ by at most this part of the first.
func (a *Assertions) InEpsilon(expected, actual interface{}, part float64, _ ...interface{}) bool {
	a.t.Helper()
	return InEpsilon(a.t, expected, actual, part)
}

// Contains holds if a text, list or map holds the element.
func (a *Assertions) Contains(holder, element interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return Contains(a.t, holder, element)
}

// ElementsMatch holds if two lists hold the same, in any order.
func (a *Assertions) ElementsMatch(one, other interface{}, _ ...interface{}) bool {
	a.t.Helper()
	return ElementsMatch(a.t, one, other)
}

// NoError holds if there is no error.
func (a *Assertions) NoError(err error, _ ...interface{}) bool {
	a.t.Helper()
	return NoError(a.t, err)
}

// Error holds if there is an error.
func (a *Assertions) Error(err error, _ ...interface{}) bool {
	a.t.Helper()
	return Error(a.t, err)
}

// Panics holds if the call panics.
func (a *Assertions) Panics(call func(), _ ...interface{}) bool {
	a.t.Helper()
	return Panics(a.t, call)
}

// Equal holds if both are deeply equal and of the same type.
func Equal(t testing.TB, expected, actual interface{}, _ ...interface{}) bool {
	t.Helper()
	return report(t, same(expected, actual), "expected %#v, got %#v", expected, actual)
}

// NotEqual holds if Equal does not.
func NotEqual(t testing.TB, expected, actual interface{}, _ ...interface{}) bool {
	t.Helper()
	return report(t, !same(expected, actual), "expected something else than %#v", actual)
}

// EqualValues holds if both are equal after a conversion to the same type.
func EqualValues(t testing.TB, expected, actual interface{}, _ ...interface{}) bool {
	t.Helper()
	return report(t, sameValue(expected, actual), "expected %#v, got %#v", expected, actual)
}

// True holds if the value is true.
func True(t testing.TB, value bool, _ ...interface{}) bool {
	t.Helper()
	return report(t, value, "expected true")
}

// False holds if the value is false.
func False(t testing.TB, value bool, _ ...interface{}) bool {
	t.Helper()
	return report(t, !value, "expected false")
}

// Nil holds if the object is nil.
func Nil(t testing.TB, object interface{}, _ ...interface{}) bool {
	t.Helper()
	return report(t, isNil(object), "expected nil, got %#v", object)
}

// NotNil holds if the object is not nil.
func NotNil(t testing.TB, object interface{}, _ ...interface{}) bool {
	t.Helper()
	return report(t, !isNil(object), "expected something else than nil")
}

// Empty holds if the object is nil, zero, or has no elements.
func Empty(t testing.TB, object interface{}, _ ...interface{}) bool {
	t.Helper()
	return report(t, isEmpty(object), "expected nothing, got %#v", object)
}

// Len holds if the object has so many elements.
func Len(t testing.TB, object interface{}, length int, _ ...interface{}) bool {
	t.Helper()
	actual := reflect.ValueOf(object).Len()
	return report(t, actual == length, "expected %d elements, got %d", length, actual)
}

// InDelta holds if two numbers differ by at most delta.
func InDelta(t testing.TB, expected, actual interface{}, delta float64, _ ...interface{}) bool {
	t.Helper()
	gap := math.Abs(number(expected) - number(actual))
	return report(t, gap <= delta, "expected %v, got %v, at most %v away", expected, actual, delta)
}

// InEpsilon holds if two numbers differ by at most this part of the first.
func InEpsilon(t testing.TB, expected, actual interface{}, part float64, _ ...interface{}) bool {
	t.Helper()
	gap := math.Abs(number(expected)-number(actual)) / math.Abs(number(expected))
	return report(t, gap <= part, "expected %v, got %v", expected, actual)
}

// Contains holds if a text, list or map holds the element.
func Contains(t testing.TB, holder, element interface{}, _ ...interface{}) bool {
	t.Helper()
	return report(t, contains(holder, element), "expected %#v in %#v", element, holder)
}

// ElementsMatch holds if two lists hold the same, in any order.
func ElementsMatch(t testing.TB, one, other interface{}, _ ...interface{}) bool {
	t.Helper()
	return report(t, sameElements(one, other), "expected the elements of %#v in %#v", one, other)
}

// NoError holds if there is no error.
func NoError(t testing.TB, err error, _ ...interface{}) bool {
	t.Helper()
	return report(t, err == nil, "expected no error, got %v", err)
}

// Error holds if there is an error.
func Error(t testing.TB, err error, _ ...interface{}) bool {
	t.Helper()
	return report(t, err != nil, "expected an error")
}

// Panics holds if the call panics.
func Panics(t testing.TB, call func(), _ ...interface{}) bool {
	t.Helper()
	return report(t, panics(call), "expected a panic")
}
