package dev.tfcompress.demo

import dev.tfcompress.demo.json.Fields
import dev.tfcompress.demo.json.Json
import dev.tfcompress.demo.json.JsonException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class JsonTest {
    @Test
    fun `what is written is read back`() {
        val value = mapOf(
            "text" to "a \"quoted\"\n\tline \\ \u0001 ö 語", "list" to listOf(1L, -2.5, true, false, null), "empty" to emptyList<Any>(),
            "object" to mapOf("a" to emptyMap<String, Any>()), "small" to 1e-12,
        )
        assertEquals(value, Json.parse(Json.write(value)))
        assertEquals(value, Json.parse(Json.write(value, indent = 2)))
        assertEquals("[null,null,0.5]", Json.write(listOf(Double.NaN, Float.POSITIVE_INFINITY, 0.5f)))
    }

    @Test
    fun `texts as other writers have them`() {
        assertEquals(mapOf("a" to listOf("\u00e9/\b\u000c\r", 10.0, 0L)), Json.parse(" {\"a\" : [\"\\u00e9\\/\\b\\f\\r\", 1e1 , 0]} \n"))
    }

    @Test
    fun `what is not JSON is refused with the place`() {
        for (text in listOf("", "{", "[1,]", "{\"a\":1,}", "{'a':1}", "01", "1.", "+1", "nul", "[1] 2", "\"a", "\"\\x\"", "\"\\u12\"", "1e999", "\"\n\"", "{\"a\":1,\"a\":2}", "[".repeat(200))) {
            val error = assertThrows(text, JsonException::class.java) { Json.parse(text) }
            assertTrue(error.message, error.message!!.startsWith("not JSON at letter "))
        }
    }

    @Test
    fun `values of the wrong kind are named with their path`() {
        val fields = Fields(Json.parse("{\"a\": {\"b\": [1, \"x\"]}, \"n\": 1.5, \"big\": 99999999999}"), "file")
        fun told(read: () -> Unit) = assertThrows(JsonException::class.java) { read() }.message
        assertEquals("file.c is missing", told { fields.text("c") })
        assertEquals("file.n must be a whole number", told { fields.whole("n") })
        assertEquals("file.big is too large", told { fields.whole("big") })
        assertEquals("file.a must be a list", told { fields.objects("a") })
        assertEquals("inner must be an object", told { Fields(3L, "inner") })
        assertEquals("x.b[1] is of the wrong kind", told { Fields(mapOf("b" to listOf(1L, "x")), "x").sizes("b") })
    }
}
