package dev.tfcompress.demo

import dev.tfcompress.demo.bundle.BundleException
import dev.tfcompress.demo.bundle.Import
import dev.tfcompress.demo.measure.Agreement
import dev.tfcompress.demo.run.Choice
import dev.tfcompress.demo.run.Run
import dev.tfcompress.demo.run.Source
import dev.tfcompress.demo.runtime.Accelerator
import dev.tfcompress.demo.runtime.EngineException
import dev.tfcompress.demo.runtime.Settings
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.ByteArrayOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Files
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

class BundleTest {
    private val engine = LinuxEngine()
    private val settings = Settings(Accelerator.XNNPACK, 1)

    @Test
    fun `a bundle of Python is read`() {
        val manifest = Given.bundle().manifest
        assertEquals("Fashion", manifest.name)
        assertEquals(listOf("float32", "int8", "int8, integers in and out"), manifest.models.map { it.name })
        assertEquals(10, manifest.labels.size)
        assertEquals(listOf(28, 28, 1), manifest.inputs.single().shape)
        assertTrue(manifest.models[2].inputs.single().grid != null && manifest.models[1].outputs.single().step > 0)
    }

    @Test
    fun `every model gives the expected outputs on the real runtime`() {
        val bundle = Given.bundle()
        val outcomes = Run(engine, bundle).run(bundle.manifest.models.map { Choice(it, settings) }, Source.Sample(0), 10)
        val (float32, int8, whole) = outcomes.map { it.agreement!! }
        assertTrue("$float32", float32.unit == "real" && float32.largest <= 1e-4 && float32.agrees)
        assertTrue("$int8", int8.unit == "real" && int8.agrees && int8.largest < 0.01)
        assertTrue("$whole", whole.unit == "steps" && whole.largest <= 1 && whole.agrees)
        assertEquals(listOf(80L, 80L, 80L), outcomes.map { it.agreement!!.values })
        for (outcome in outcomes) {
            assertEquals("Ankle boot", outcome.answers.first().label)
            assertTrue("${outcome.answers}", outcome.answers.first().share!! > 0.5)
            assertEquals(10, outcome.times.runs)
            assertTrue(outcome.times.median > 0 && outcome.times.p90 >= outcome.times.median && outcome.init > 0)
        }
        assertNull(outcomes[0].ratio)
        assertTrue(outcomes[1].ratio!! > 0)
    }

    @Test
    fun `other outputs than the expected ones are found`() {
        val folder = Given.folder()
        val expected = File(folder, "expected/float32/garment.bin")
        val bytes = expected.readBytes()
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).putFloat(bytes.size - 4, 7f)
        expected.writeBytes(bytes)
        val bundle = Given.bundle(folder)
        val agreement: Agreement = Run(engine, bundle).run(listOf(Choice(bundle.manifest.models[0], settings)), Source.Sample(0), 1).single().agreement!!
        assertFalse(agreement.agrees || agreement.close)
        assertEquals(7.0, agreement.largest, 0.2)
    }

    @Test
    fun `samples as values`() {
        val bundle = Given.bundle()
        val sample = bundle.sample(0, 3)
        assertEquals(784, sample.size)
        assertTrue(sample.all { it in 0f..1f } && sample.any { it > 0.5f })
        // What the integer model is fed with is round(real / scale) + zero.
        val model = bundle.manifest.models[2]
        val grid = model.inputs.single().grid!!
        val fed = bundle.feed(model, 3).getValue("image")
        val expected = ByteArray(784) { Math.rint((sample[it] / grid.scale).toDouble()).toInt().plus(grid.zeroPoint).coerceIn(-128, 127).toByte() }
        assertArrayEquals(expected, ByteArray(784) { fed[it] })
    }

    @Test
    fun `a broken bundle is told in words`() {
        fun told(from: String, to: String) = assertThrows("$from -> $to", BundleException::class.java) { Given.bundle(Given.changed(Given.folder(), from, to)) }.message!!
        assertEquals("this is not a bundle of tflite_export", told("tflite_export.bundle", "other"))
        assertEquals("the bundle is of version 2, this app reads 1: update the app", told("\"schema\": 1", "\"schema\": 2"))
        assertEquals("manifest.json: manifest.rows must be a whole number", told("\"rows\": 8", "\"rows\": \"8\""))
        assertEquals("the bundle holds no samples", told("\"rows\": 8", "\"rows\": 0"))
        assertEquals("samples/image.bin has 25088 bytes instead of 28224", told("\"rows\": 8", "\"rows\": 9"))
        assertEquals("'../float32.tflite' is no plain name of a file", told("models/float32.tflite", "../float32.tflite"))
        assertEquals("samples/other.bin of the bundle is missing or cannot be read", told("samples/image.bin", "samples/other.bin"))
        assertTrue(told("\"labels\": [", "\"labels\": [ \"one more\",").contains("there are 11 labels"))
        assertTrue(told("{", "").startsWith("manifest.json: not JSON at letter"))
        assertTrue(told("255.0", "0").endsWith("is divided by 0"))
    }

    @Test
    fun `a model of an unknown type is told, the others can be used`() {
        val folder = Given.folder()
        val manifest = File(folder, "manifest.json")
        val text = manifest.readText()
        val at = text.indexOf("\"type\": \"int8\"")
        manifest.writeText(text.substring(0, at) + "\"type\": \"string\"" + text.substring(at + "\"type\": \"int8\"".length))
        val bundle = Given.bundle(folder)
        val strange = bundle.manifest.models[2]
        val expected = "'image' of model 'int8, integers in and out' is of type 'string'. This app knows float32, int8, uint8, int16, int32, int64, bool."
        assertEquals(expected, assertThrows(EngineException::class.java) { Run(engine, bundle).run(listOf(Choice(strange, settings)), Source.Sample(0), 1) }.message)
        assertEquals(1, Run(engine, bundle).run(listOf(Choice(bundle.manifest.models[0], settings)), Source.Sample(0), 1).size)
    }

    @Test
    fun `a damaged model and a missing accelerator are told`() {
        val folder = Given.folder()
        val model = File(folder, "models/float32.tflite")
        model.writeBytes(model.readBytes().also { it[5000] = (it[5000] + 1).toByte() })
        val bundle = Given.bundle(folder)
        fun told(settings: Settings): String? = assertThrows(Exception::class.java) {
            Run(engine, bundle).run(listOf(Choice(bundle.manifest.models[0], settings)), Source.Sample(0), 1)
        }.message
        assertEquals("models/float32.tflite is damaged: it is not the file that was bundled", told(settings))
        assertEquals("This machine has no GPU for the runtime.", told(settings.copy(accelerator = Accelerator.GPU)))
    }

    @Test
    fun `archives that are no bundles leave what was there`() {
        val folder = Given.folder()
        fun told(content: ByteArray, largest: Long = 1L shl 30) = assertThrows(BundleException::class.java) { Import.unzip(content.inputStream(), folder, largest) }.message!!
        assertEquals("the file is no zip archive with a bundle", told("no archive".toByteArray()))
        assertEquals("'../../evil' is no plain name of a file", told(zip("../../evil" to "x")))
        assertEquals("there is no manifest.json, so this is no bundle", told(zip("other" to "x")))
        assertEquals("the archive is larger than this app takes", told(zip("manifest.json" to "x".repeat(5000)), largest = 1000))
        val whole = Given.stream("bundle.zip").use { it.readBytes() }
        assertTrue(told(whole.copyOf(whole.size / 2)).startsWith("the file cannot be unpacked") || whole.isEmpty())
        assertEquals("Fashion", Given.bundle(folder).manifest.name)
        assertEquals(listOf("bundle"), folder.parentFile!!.list()!!.toList())
    }

    @Test
    fun `an archive with the bundle in a folder is taken`() {
        val from = Given.folder()
        val files = from.walk().filter { it.isFile }.toList()
        val packed = ByteArrayOutputStream()
        ZipOutputStream(packed).use { archive ->
            for (file in files) {
                archive.putNextEntry(ZipEntry("bundle/" + file.relativeTo(from).path))
                archive.write(file.readBytes())
            }
        }
        val target = File(Files.createTempDirectory("demo").toFile(), "taken")
        assertEquals(3, Import.unzip(packed.toByteArray().inputStream(), target).manifest.models.size)
    }

    private fun zip(vararg files: Pair<String, String>): ByteArray = ByteArrayOutputStream().also { out ->
        ZipOutputStream(out).use { archive ->
            for ((name, content) in files) {
                archive.putNextEntry(ZipEntry(name))
                archive.write(content.toByteArray())
            }
        }
    }.toByteArray()
}
