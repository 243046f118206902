package dev.tfcompress.demo

import android.content.Intent
import android.widget.Spinner
import dev.tfcompress.demo.json.Json
import dev.tfcompress.demo.screen.CompareActivity
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf

class CompareActivityTest : ScreenTest() {
    @Test
    fun `two models stand side by side`() {
        push()
        val screen = start<CompareActivity>().get()
        screen.choose(R.id.second_model, 2)
        screen.press(R.id.run)
        assertEquals(listOf("float32", "int8, integers in and out"), state.compared.map { it.choice.model.name })
        val texts = screen.texts()
        assertTrue("$texts", texts.any { it.matches(Regex("\\d+[.,]\\d\\d times")) } && texts.count { it.startsWith("agree: ") } == 2)
        assertEquals(2, texts.count { it.startsWith("Ankle boot, ") })
        screen.look("compare")
        screen.press(R.id.share)
        val sent = shadowOf(screen).nextStartedActivity.getParcelableExtra(Intent.EXTRA_INTENT, Intent::class.java)!!
        val entries = (Json.parse(sent.getStringExtra(Intent.EXTRA_TEXT)!!) as Map<*, *>)["entries"] as List<*>
        assertEquals(2, entries.size)
        assertTrue(((entries[1] as Map<*, *>)["ratio"] as Number).toDouble() > 0)
        workedElsewhere()
    }

    @Test
    fun `rotation keeps both picks and the figures`() {
        push()
        val controller = start<CompareActivity>()
        controller.get().choose(R.id.first_model, 1)
        controller.get().press(R.id.run)
        val before = controller.get().texts()
        RuntimeEnvironment.setQualifiers("+land")
        controller.recreate()
        settle()
        assertEquals(before, controller.get().texts())
        assertEquals(1, controller.get().findViewById<Spinner>(R.id.first_model).selectedItemPosition)
    }

    @Test
    fun `what goes wrong is told in words`() {
        push()
        val screen = start<CompareActivity>().get()
        screen.choose(R.id.second_accelerator, 2)
        screen.press(R.id.run)
        assertEquals("This machine has no GPU for the runtime.", screen.text(R.id.error))
        screen.press(R.id.back)
        assertTrue(screen.isFinishing)
    }

    @Test
    fun `without a bundle nothing can be run`() {
        val screen = start<CompareActivity>().get()
        assertFalse(screen.findViewById<android.view.View>(R.id.run).isEnabled)
        assertTrue(screen.text(R.id.summary).startsWith("No models yet."))
    }
}
